"""Scores an answer to a golden question: 1 right, 0 wrong, between for webhooks.

Patterns run with a time limit, schemas fetch nothing, webhooks are asked with a deadline. Knows nothing about who asks
the questions.
"""

import asyncio
from typing import Any, Protocol
from urllib.parse import urlsplit

from serin_control.observations.pattern import found
from serin_control.observations.unscored import NotScored
from serin_control.observations.webhook import WebhookFailed, post_json
from serin_control.rollouts.golden_set import GoldenCase

WEBHOOK_TIMEOUT_S = 10.0


class Scorer(Protocol):
    """Scores answers."""

    async def score(self, case: GoldenCase, answer: str) -> float:
        """From 0 (wrong) to 1 (right).

        Raises:
            NotScored: it cannot be said.
        """


class DeclaredScorer:
    """Scores as each case declares: by exact text, pattern, JSON Schema or webhook."""

    async def score(self, case: GoldenCase, answer: str) -> float:
        """From 0 (wrong) to 1 (right)."""
        if case.scorer == "exact":
            return float(answer.strip() == case.expected.strip())
        if case.scorer == "regex":
            return float(await asyncio.to_thread(found, case.expected, answer))
        if case.scorer == "schema":
            return float(await asyncio.to_thread(_obeys, case.expected, answer))
        return await _ask_webhook(case, answer)


def _obeys(schema: dict[str, Any], text: str) -> bool:
    from serin_control.observations.obedience import obeys  # some megabytes that only schemas need

    return obeys(schema, text)


async def _ask_webhook(case: GoldenCase, answer: str) -> float:
    question: Any = case.prompt
    if question is None:
        question = [{"role": role, "content": text} for role, text in case.messages]
    try:
        reply = await post_json(
            case.expected, {"id": case.id, "prompt": question, "answer": answer}, timeout_s=WEBHOOK_TIMEOUT_S
        )
    except WebhookFailed as failed:
        raise NotScored(str(failed), _host(case.expected)) from failed
    score = reply.get("score") if isinstance(reply, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise NotScored(f"{case.expected}: no score from 0 to 1 in its answer", _host(case.expected))
    return float(score)


def _host(address: str) -> str:
    """Whose webhook it is: its paths, of which each question may have one of its own, fail together."""
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
