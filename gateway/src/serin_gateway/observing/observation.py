"""What is observed, as values: attempts that ended, texts scored on two lanes, what callers thought of answers.

Knows nothing about where they go.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serin_gateway.attempt_receipt import AttemptReceipt


@dataclass(frozen=True, slots=True)
class Beginning:
    """An attempt was given to a worker of its lane; ``session`` is a number of :class:`~.sessions.Sessions`."""

    model: str
    lane: str
    session: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One attempt that ended, at a Unix time; ``session`` is a number of :class:`~.sessions.Sessions`."""

    request_id: str
    model: str
    session: int
    finished_at: float
    attempt: AttemptReceipt


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """One answer's tokens, scored on two lanes: mean log-probabilities in nats, share of positions they agree on."""

    model: str
    session: int
    stable_lane: str
    canary_lane: str
    num_tokens: int
    stable_logprob: float
    canary_logprob: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a caller thought of an answer, from 0 (useless) to 1 (as wanted), at a Unix time."""

    request_id: str
    model: str
    lane: str
    session: int
    score: float
    given_at: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What was observed since the last batch; ``num_dropped`` observations found no room."""

    begun: Sequence[Beginning] = ()
    observations: Sequence[Observation] = ()
    scores: Sequence[ShadowScore] = ()
    feedback: Sequence[Feedback] = ()
    num_dropped: int = 0
