"""What the judge is told: finished requests, texts scored on two lanes, golden questions, feedback.

Values only. Knows nothing about where they come from, and holds no text, no ids and no name of a caller.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Recall(enum.StrEnum):
    """How the recall of an attempt went; UNKNOWN: it did not come to it, or nobody said."""

    UNKNOWN = ""
    SKIPPED = "skipped"
    MISSED = "missed"
    PREFIX = "prefix"
    ANSWER = "answer"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Beginning:
    """An attempt of a request was given to a worker of a lane; ``session`` is opaque."""

    lane: str
    session: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One finished attempt of a request on one lane.

    Attributes:
        session: what it is clustered by, opaque.
        finished_at: seconds since 1970.
        reason: "ok", or the reason of its error.
        first_token_s: seconds from being placed to the first token; 0: there was none.
        seconds_per_token: mean time between tokens after the first; 0: there were fewer than two.
        worker_load: sequences that ran on the worker when this one was placed.
        finish_reasons: how many of its answers ended by which reason.
        schema_valid: whether the answer obeyed its schema; None: none was asked for.
        refused: whether the answer refused to help; None: not known.
        recall: how its recall went.
        recall_s: seconds that took, before it was placed.
        was_told_of: its :class:`Beginning` was told before.
    """

    request_id: str
    lane: str
    session: int
    finished_at: float
    reason: str = "ok"
    first_token_s: float = 0.0
    seconds_per_token: float = 0.0
    num_uncached_tokens: int = 0
    num_cached_tokens: int = 0
    worker_load: int = 0
    num_answer_tokens: int = 0
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    num_resumes: int = 0
    worker: str = ""
    schema_valid: bool | None = None
    refused: bool | None = None
    recall: Recall = Recall.UNKNOWN
    recall_s: float = 0.0
    was_told_of: bool = False

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt, computed or reused."""
        return self.num_uncached_tokens + self.num_cached_tokens


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """One answer's text, scored by prefill on two lanes of one vocabulary.

    Attributes:
        canary_lane: the lane that is compared; the stable lane again in a calibration.
        num_tokens: tokens that were scored, at least 1.
        stable_logprob, canary_logprob: mean log-probability of these tokens, in nats.
        agreement: share of positions at which both find the same token likeliest, 0 to 1.
    """

    session: int
    stable_lane: str
    canary_lane: str
    num_tokens: int
    stable_logprob: float
    canary_logprob: float
    agreement: float

    @property
    def is_calibration(self) -> bool:
        """Whether it compares the stable lane with itself."""
        return self.stable_lane == self.canary_lane


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """One golden question, asked on both lanes: scores from 0 (wrong) to 1 (right)."""

    case_id: str
    stable_score: float
    canary_score: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a caller thought of one lane's answer, from 0 to 1."""

    request_id: str
    lane: str
    session: int
    score: float


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Resident memory of one worker process, at one moment.

    Attributes:
        at: seconds since 1970.
        num_requests: requests that the process had finished by then.
    """

    lane: str
    instance: str
    at: float
    resident_bytes: int
    num_requests: int
