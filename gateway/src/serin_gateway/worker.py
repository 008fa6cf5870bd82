"""The seam to workers: token ids in, token ids out.

Knows nothing about gRPC or text; `upstream/` carries it out over the mesh, `testing` in memory.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from serin_gateway.ask import Sampling
from serin_gateway.catalog import Worker
from serin_gateway.events import FinishReason
from serin_gateway.tokenizer import CallScope


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability in nats of the token taken, and (id, log-probability) of the most probable ones."""

    logprob: float
    alternatives: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class PriorOutput:
    """What a choice produced before, on a worker that is gone."""

    choice_index: int
    token_ids: Sequence[int]
    finished: bool


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What a worker is asked to generate.

    Attributes:
        grammar: a prepared one; empty: none.
        account: what it counts what it sends under.
    """

    prompt: Sequence[int]
    sampling: Sampling
    cache_group: str
    cache_salt: str
    priority: int
    prior_outputs: Sequence[PriorOutput] = ()
    kv_source: str = ""
    grammar: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """The prompt was scheduled for the first time on this worker.

    Attributes:
        numerics_class: identical tokens come only from workers of one class; empty: unknown.
    """

    worker: str
    cached_tokens: int
    seed: int
    numerics_class: str = ""


@dataclass(frozen=True, slots=True)
class TokensMade:
    """All tokens made for a choice since the last event about it; ``first_position`` counts prior output too."""

    choice_index: int
    first_position: int
    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprob]


@dataclass(frozen=True, slots=True)
class ChoiceMade:
    """The worker ended a choice."""

    choice_index: int
    finish_reason: FinishReason
    stop_token_id: int | None


@dataclass(frozen=True, slots=True)
class WorkDone:
    """All choices ended; the last event. Times in seconds."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    num_preemptions: int = 0


WorkEvent = WorkStarted | TokensMade | ChoiceMade | WorkDone


class Work(Protocol):
    """Work that a worker does for us, as it happens."""

    def __aiter__(self) -> AsyncIterator[WorkEvent]:
        """The events in order; ends without an error after :meth:`abort`.

        Raises:
            MeshError: while iterating; a stream that ends without :class:`WorkDone` is UPSTREAM_UNAVAILABLE.
        """

    def abort(self) -> None:
        """Have it stopped at once and everything it holds freed. After its end this changes nothing."""


class Workers(Protocol):
    """Calls workers."""

    def generate(self, scope: CallScope, worker: Worker, order: WorkOrder, may_move: Callable[[], bool]) -> Work:
        """Begin work; whoever begins it aborts it in the end.

        ``may_move`` says, when the worker has fallen silent, whether the work could go on elsewhere now.
        """
