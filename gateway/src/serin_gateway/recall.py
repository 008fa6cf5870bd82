"""The seam to what was computed before: stored answers, and who holds a prompt's prefix.

Any failure behind this seam is a miss that says so. Knows nothing about gRPC.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serin_gateway.ask import Sampling
from serin_gateway.events import FinishReason
from serin_gateway.tokenizer import CallScope
from serin_gateway.worker import TokenLogprob


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What makes two requests the same, beside the lane; ``grammar`` is a prepared one, empty for none."""

    cache_group: str
    cache_salt: str
    prompt: Sequence[int]
    sampling: Sampling
    stop_strings: Sequence[str]
    grammar: str = ""


@dataclass(frozen=True, slots=True)
class StoredChoice:
    """One choice of an answer, as ids."""

    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprob]
    finish_reason: FinishReason
    stop_token_id: int | None = None
    stop_string: str | None = None


class RecallOutcome(enum.StrEnum):
    """How a recall went. FAILED: the cache or its store did not answer in time, or was left alone after failures."""

    SKIPPED = "skipped"
    MISSED = "missed"
    PREFIX = "prefix"
    ANSWER = "answer"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was found: an answer, or which endpoints hold how many positions of the prompt.

    ``failed``: the cache or its store did not say all it should; ``skipped``: there is no cache to ask, or nothing that
    depends on what it would say.
    """

    answer: Sequence[StoredChoice] | None = None
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    failed: bool = False
    skipped: bool = False

    @property
    def outcome(self) -> RecallOutcome:
        """How it went, in one word; a failure counts as one whatever was found beside it."""
        if self.failed:
            return RecallOutcome.FAILED
        if self.skipped:
            return RecallOutcome.SKIPPED
        if self.answer is not None:
            return RecallOutcome.ANSWER
        return RecallOutcome.PREFIX if self.cached_tokens else RecallOutcome.MISSED


class Memory(Protocol):
    """Remembers answers and prefixes."""

    async def recall(self, scope: CallScope, key: AnswerKey, *, allow_answer: bool) -> Recalled:
        """Look; slow or down: a :class:`Recalled` that has failed, with what is known all the same."""

    async def keep(self, scope: CallScope, key: AnswerKey, answer: Sequence[StoredChoice]) -> None:
        """Store an answer if that can be done now; otherwise nothing happens."""


class NoMemory:
    """Remembers nothing: for meshes without cache-svc, and tests."""

    async def recall(self, scope: CallScope, key: AnswerKey, *, allow_answer: bool) -> Recalled:
        """Nothing."""
        return Recalled(skipped=True)

    async def keep(self, scope: CallScope, key: AnswerKey, answer: Sequence[StoredChoice]) -> None:
        """Nothing happens."""
