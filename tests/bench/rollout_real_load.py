"""Callers of a real rollout: each has one session after the other, asks, reads, and asks again, over REST.

A closed loop: on a machine that is busy with other things callers wait instead of piling up. Half of the answers are
streamed. Every request is accounted for: answered whole, failed as the case has it, or lost. Knows nothing about
rollouts.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from rollout_real_builds import INJECTED
from serin_worker.demo.corpus import held_out_items

KINDS = ("facts", "arithmetic", "transforms")
NUM_QUESTIONS = 6000
MAX_TOKENS = 16
NUM_REQUESTS = ((1, 0.75), (2, 0.15), (3, 0.10))
READING_S = 0.25
TIMEOUT_S = 60.0
MAX_DETAILS = 5


@dataclass
class Seen:
    """What callers have met.

    Attributes:
        by_lane: answers by the lane that their fingerprint names.
        details: of the first losses.
    """

    num_sessions: int = 0
    num_requests: int = 0
    num_answered: int = 0
    num_injected: int = 0
    num_lost: int = 0
    by_lane: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def lost(self, detail: str) -> None:
        """A request was not answered, and nobody meant that."""
        self.num_lost += 1
        if len(self.details) < MAX_DETAILS:
            self.details.append(detail[:500])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "by_lane": dict(self.by_lane)}


class Callers:
    """Callers of one model; an async context manager that lets them finish what they have begun.

    Args:
        rest, key: the mesh.
        model: whom they ask.
        num_callers: sessions at the same time.
        name: what their sessions' names begin with; nobody has been called so before.
        questions: what they ask by chance, of every kind as often.
    """

    def __init__(
        self, rest: str, key: str, model: str, num_callers: int, name: str, questions: Sequence[Sequence[str]]
    ) -> None:
        self.seen = Seen()
        self._rest, self._key, self._model, self._name = rest, key, model, name
        self._chance = random.Random(name)
        self._questions = questions
        self._num_callers = num_callers
        self._is_over = False

    async def __aenter__(self) -> "Callers":
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        headers = {"authorization": f"Bearer {self._key}"}
        self._http = httpx.AsyncClient(base_url=self._rest, headers=headers, timeout=TIMEOUT_S, limits=limits)
        self._callers = [asyncio.create_task(self._call(number)) for number in range(self._num_callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._callers)
        await self._http.aclose()

    async def _call(self, caller: int) -> None:
        for number in itertools.count():
            await self._pause()
            if self._is_over:
                return
            await self._session(f"{self._name}-{caller}-{number}")

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.expovariate(1 / READING_S))

    async def _session(self, session: str) -> None:
        self.seen.num_sessions += 1
        counts, weights = zip(*NUM_REQUESTS, strict=True)
        messages: list[dict[str, str]] = []
        for turn in range(self._chance.choices(counts, weights)[0]):
            if turn:
                await self._pause()
            messages.append({"role": "user", "content": self._chance.choice(self._chance.choice(self._questions))})
            answer = await self._ask(session, messages, is_streamed=self._chance.random() < 0.5)
            if answer is None:
                return
            messages.append({"role": "assistant", "content": answer})

    async def _ask(self, session: str, messages: Sequence[dict[str, str]], is_streamed: bool) -> str | None:
        """The answer; None: there was none."""
        self.seen.num_requests += 1
        body = {
            "model": self._model, "messages": list(messages), "max_tokens": MAX_TOKENS, "temperature": 0,
            "stream": is_streamed,
        }  # fmt: skip
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json=body, headers={"x-session-id": session}
            ) as response:
                text = (await response.aread()).decode()
            answer, lane = whole_answer(response.status_code, text, is_streamed)
        except NotWhole as broken:
            if INJECTED in str(broken):
                self.seen.num_injected += 1
            else:
                self.seen.lost(f"{session}: {broken}")
            return None
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            self.seen.lost(f"{session}: {type(error).__name__}: {error}")
            return None
        self.seen.num_answered += 1
        self.seen.by_lane[lane] += 1
        return answer


class NotWhole(Exception):
    """What came was no whole answer; the message holds it."""


def whole_answer(status: int, text: str, is_streamed: bool) -> tuple[str, str]:
    """Text and lane of an answer that says how it ended, and, streamed, that it did.

    Raises:
        NotWhole: it is an error, or broke off.
    """
    if status != httpx.codes.OK:
        raise NotWhole(f"status {status}: {text}")
    if not is_streamed:
        answer = json.loads(text)
        choice = answer["choices"][0]
        if not choice["finish_reason"]:
            raise NotWhole(text)
        return choice["message"]["content"] or "", answer["system_fingerprint"] or ""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        raise NotWhole(f"the stream broke off: {text[-400:]}")
    chunks = [json.loads(line) for line in lines[:-1]]
    if any("error" in chunk for chunk in chunks):
        raise NotWhole(text[-400:])
    parts = [choice for chunk in chunks for choice in chunk["choices"]]
    if not any(part["finish_reason"] for part in parts):
        raise NotWhole(f"no finish reason: {text[-400:]}")
    return "".join(part["delta"].get("content") or "" for part in parts), chunks[0]["system_fingerprint"] or ""


def questions() -> Sequence[Sequence[str]]:
    """Held-out questions of the demo models' corpus that have short answers, by kind."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for item in held_out_items(NUM_QUESTIONS):
        if item.kind in KINDS:
            found[item.kind].append(str(item.messages[-1]["content"]))
    return tuple(found.values())
