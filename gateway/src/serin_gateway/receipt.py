"""What there is to know about a request once it is over, and who is told.

Knows nothing about logs or metrics; it never holds prompt text.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from serin_mesh.errors import MeshError, Reason

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.cascades.cascade import Decision
from serin_gateway.events import Usage
from serin_gateway.guards.decisions import Decisions
from serin_gateway.unquoted import unquoted

Door = Literal["rest", "grpc"]

MAX_MESSAGE = 400
"""Characters of an error's sentence that are kept."""


@dataclass(slots=True)
class LostWorker:
    """A worker that let go of a request before its answer was complete.

    Attributes:
        cause: why, from a closed set.
        message: what it, or the transport, said.
        mid_stream: whether the caller had seen something of the answer.
        pause_s: from the last token before to the first after; absent: the answer did not go on, or had not begun.
    """

    worker: str
    cause: str
    message: str
    mid_stream: bool
    pause_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that could not take a request, the one that was asked next, and the reason."""

    model: str
    to: str
    reason: str


@dataclass(slots=True)
class Receipt:
    """One request's account; times in seconds.

    Attributes:
        asked: the name that was asked for; ``model`` is the one that answers.
        decision: what a cascade decided; None: there was none, or nothing was decided.
        fallbacks: in order, one for each model that could not answer.
        passed_over: names of what was said beside the request and decided nothing.
        unshown: places, as the caller wrote them, of what has no effect on the model's prompt.
        usage: what its caller is told; ``billed``: by model, thrown away answers of cascades included.
        operation: which of the API's operations it was, from a closed set.
        session_key: tenant and sticky key, by which it drew its lane; empty: its caller chose the lane.
        reason, message: "ok", or reason and sentence of the error that ended it, without what that quotes.
        verbs: seconds by verb; generating includes waiting for the worker.
        guarded: what guards decided; absent where no policy asks for any.
        lost_workers: in order, one for each time a worker let go.
        first_token_s, last_token_s: from arrival; absent while there is no token.
    """

    request_id: str
    door: Door
    operation: str = "unknown"
    tenant: str = ""
    key_id: str = ""
    model: str = ""
    lane: str = ""
    worker: str = ""
    session_key: str = ""
    reason: str = "ok"
    message: str = ""
    num_attempts: int = 0
    lost_workers: list[LostWorker] = field(default_factory=list)
    attempts: list[AttemptReceipt] = field(default_factory=list)
    cached_answer: bool = False
    asked: str = ""
    decision: Decision | None = None
    fallbacks: list[Fallback] = field(default_factory=list)
    passed_over: Sequence[str] = ()
    unshown: Sequence[str] = ()
    guarded: Decisions | None = None
    usage: Usage = field(default_factory=Usage)
    billed: dict[str, Usage] = field(default_factory=dict)
    verbs: dict[str, float] = field(default_factory=dict)
    first_token_s: float | None = None
    last_token_s: float | None = None
    duration_s: float = 0.0
    arrived_at: float = field(default_factory=time.monotonic)

    @property
    def is_billed(self) -> bool:
        """Whether it used anything that is billed; known when it is settled."""
        return any(usage.prompt_tokens for usage in self.billed.values())

    @property
    def ignored(self) -> Sequence[str]:
        """Names of all that had no effect, for its caller."""
        return [*self.passed_over, *self.unshown]

    @property
    def num_resumes(self) -> int:
        """Times an answer that had begun went on on another worker."""
        return sum(lost.pause_s is not None for lost in self.lost_workers)

    @property
    def route(self) -> str:
        """How it came to its model, where that was decided on the way; empty: it was asked for."""
        parts = [str(self.decision)] if self.decision else []
        parts += [f"{one.model}:fallback:{one.reason}" for one in self.fallbacks]
        return ", ".join(parts)

    @contextmanager
    def timed(self, verb: str) -> Iterator[None]:
        """Add the time of a block to a verb."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.verbs[verb] = self.verbs.get(verb, 0.0) + time.monotonic() - began

    def ended_by(self, error: BaseException | None) -> None:
        """Name what ended the request."""
        if isinstance(error, MeshError):
            self.reason, self.message = error.reason.value, unquoted(error)
        elif isinstance(error, asyncio.CancelledError):
            self.reason = Reason.CANCELLED.value
        elif error is not None:
            self.reason = Reason.INTERNAL.value

    def token_arrived(self) -> None:
        """A worker has made tokens."""
        self.last_token_s = time.monotonic() - self.arrived_at
        if self.first_token_s is None:
            self.first_token_s = self.last_token_s


class Journal(Protocol):
    """Who is told about requests."""

    def opened(self, receipt: Receipt) -> None:
        """A request has arrived."""

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """An attempt of it was given to its first worker: its model and lane are known."""

    def closed(self, receipt: Receipt) -> None:
        """It is over; the receipt is complete."""


class MemoryJournal:
    """Keeps all receipts."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        self.num_open = 0
        self._closed = asyncio.Event()

    async def until_closed(self, count: int) -> None:
        """Wait until this many requests are over."""
        while len(self.receipts) < count:
            self._closed.clear()
            await self._closed.wait()

    def opened(self, receipt: Receipt) -> None:
        """Count it."""
        self.num_open += 1

    def placed(self, receipt: Receipt, attempt: AttemptReceipt) -> None:
        """Nothing of it is kept before the end."""

    def closed(self, receipt: Receipt) -> None:
        """Keep it."""
        self.num_open -= 1
        self.receipts.append(receipt)
        self._closed.set()
