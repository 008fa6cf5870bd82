"""What the engine says about a request, in this order: started, deltas and finished choices, then one summary.

A request that fails ends with ``Failed`` instead of a summary. Knows nothing about text or protobuf.
"""

from dataclasses import dataclass, field
from typing import Literal

from serin_worker.errors import WorkerError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities (natural) at one position: the token's own and the likeliest ones', best first."""

    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The first step with this request has been run."""

    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass(slots=True)
class Delta:
    """New tokens of one choice; ``first_position`` counts from the choice's first output token, prior included."""

    choice_index: int
    first_position: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """A choice has its last token. ``stop_id`` is the id that ended it, already sent as its last token."""

    choice_index: int
    reason: FinishReason
    stop_id: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The request is done. Output counts are of this attempt: prior output is not counted again."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_preemptions: int
    queue_s: float
    """From arrival to the first step."""
    prefill_s: float
    """From the first step to the first token."""
    decode_s: float
    """From the first token to the last."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities (natural) of the target tokens, in order."""

    logprobs: tuple[TokenLogprobs, ...]
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ends here, with this error."""

    error: WorkerError


Output = Started | Delta | ChoiceFinished | Summary | Scored | Failed
