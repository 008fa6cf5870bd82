"""What there is to know about one attempt, a prompt on one lane, once it is over.

Figures only: no text, no ids. Knows nothing about who is told.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from serin_mesh.errors import MeshError, Reason

from serin_gateway.events import ChoiceEnded
from serin_gateway.recall import RecallOutcome
from serin_gateway.refusals import is_refusal


class FinishedChoice(Protocol):
    """What an account wants to know of a choice."""

    opening: str
    ended: ChoiceEnded | None

    @property
    def num_counted(self) -> int:
        """Its tokens that count."""


@dataclass(slots=True)
class AttemptReceipt:
    """One attempt's account.

    Attributes:
        lane: the lane that it began on.
        taken_over_by: another lane, of the same KV digest, that went on with it because no worker of its own could;
            empty: none had to.
        model: the model that it asked.
        thrown_away: its answer was held back, and another model's was given.
        worker, cluster: the worker that had it last, and the cluster of that worker, which names its version.
        reason: "ok", or the reason of the error that ended it; empty until then, and when it was cut short.
        placed_at, first_at, last_at: monotonic seconds; absent while it has not happened.
        worker_load: sequences that ran on its first worker when it was placed there.
        num_placements: workers that it was given to, one after the other.
        longest_answer: tokens of its longest choice.
        refused: whether it refused to help; None: not known.
        recall: how its recall went; None: there was none.
        recall_s: seconds that took.
        was_told_of: that it began was reported.
    """

    lane: str = ""
    worker: str = ""
    cluster: str = ""
    reason: str = ""
    placed_at: float | None = None
    first_at: float | None = None
    last_at: float | None = None
    worker_load: int = 0
    num_placements: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_answer_tokens: int = 0
    longest_answer: int = 0
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    refused: bool | None = None
    recall: RecallOutcome | None = None
    recall_s: float = 0.0
    model: str = ""
    thrown_away: bool = False
    taken_over_by: str = ""
    was_told_of: bool = False

    @property
    def lane_reason(self) -> str:
        """How its lane did: as it ended, unless another lane had to save it. Without that one it had ended there."""
        return Reason.LANE_LOST.value if self.taken_over_by else self.reason

    @property
    def first_token_s(self) -> float:
        """Seconds from being placed to the first token; 0: there was none, or no worker made it."""
        if self.placed_at is None or self.first_at is None:
            return 0.0
        return max(0.0, self.first_at - self.placed_at)

    @property
    def seconds_per_token(self) -> float:
        """Mean time between a choice's tokens after the first; 0: there were fewer than two."""
        if self.placed_at is None or self.first_at is None or self.last_at is None or self.longest_answer < 2:
            return 0.0
        return (self.last_at - self.first_at) / (self.longest_answer - 1)

    @property
    def num_resumes(self) -> int:
        """Times it went on on another worker."""
        return max(0, self.num_placements - 1)

    def recalled(self, outcome: RecallOutcome, seconds: float) -> None:
        """The cache was asked."""
        self.recall, self.recall_s = outcome, seconds

    def placed(self, worker: str, cluster: str, load: int) -> None:
        """It was given to a worker on which so many sequences ran."""
        self.worker, self.cluster = worker, cluster
        self.num_placements += 1
        if self.placed_at is None:
            self.placed_at, self.worker_load = time.monotonic(), load

    def token_arrived(self) -> None:
        """A worker has made tokens."""
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at

    def cut_short(self) -> None:
        """Something that is not its lane's doing ends it."""
        self.reason = Reason.CANCELLED.value

    @contextmanager
    def ending(self) -> Iterator[None]:
        """A block that does all of it: how the block ends is how the attempt does."""
        try:
            yield
        except MeshError as error:
            self.reason = self.reason or error.reason.value
            raise
        except asyncio.CancelledError:
            raise
        except Exception:
            self.reason = Reason.INTERNAL.value
            raise
        else:
            self.reason = "ok"

    def complete(self, request_reason: str, choices: Sequence[FinishedChoice]) -> None:
        """Sum up: what it has made, and what cut it short if nothing of its own ended it."""
        if not self.reason:
            late = Reason.DEADLINE_EXCEEDED.value
            self.reason = late if request_reason == late else Reason.CANCELLED.value
        counts = [choice.num_counted for choice in choices]
        self.num_answer_tokens, self.longest_answer = sum(counts), max(counts, default=0)
        reasons: dict[str, int] = {}
        for choice in choices:
            if choice.ended is not None:
                name = choice.ended.finish_reason.value
                reasons[name] = reasons.get(name, 0) + 1
        self.finish_reasons = reasons
        if self.reason == "ok":
            found = [is_refusal(choice.opening) for choice in choices]
            self.refused = True if True in found else None if None in found or not found else False
