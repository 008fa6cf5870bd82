"""What a worker's failure means for the prompt it was working on: go on elsewhere, or give up and say why.

Knows nothing about how work is placed or resumed.
"""

import enum
import time
from collections.abc import Callable, Mapping

from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import RETRY_AFTER_S, Worker

MAX_DEATHS = 2
"""A prompt that this many workers died of is not given to another one."""
MAX_LOSSES = 8
"""Workers that may let go of one prompt, for whatever cause, before it is given up."""
AVOIDED_S = 10.0
"""A worker that let go of a prompt does not get it again for so long: by then another process may be there."""
BRIEFLY_AVOIDED_S = 0.5
"""The same for one that could not take it just then; one that is silent gets nothing anyway until it speaks again."""


class Cause(enum.StrEnum):
    """Why a worker let go of a prompt. A closed set: it is also a metric's label."""

    KILLED = "killed"
    """Its connection broke, or its stream ended too early."""
    SILENT = "silent"
    """It says nothing any more: stopped, or cut off."""
    STALLED = "stalled"
    """It lives, and its engine takes no step."""
    DRAINING = "draining"
    """It goes away, and the answer would have taken longer than it stays."""
    UNREACHABLE = "unreachable"
    """The call never arrived there, so it cannot have died of it."""
    REFUSED = "refused"
    """Its queue is full, it is not ready, or it is no longer what the lane says."""
    GIVEN_UP = "given_up"
    """It cancelled the work by itself."""


_NAMES = frozenset(Cause)

DEATHS = frozenset({Cause.KILLED, Cause.SILENT, Cause.STALLED})
"""What a request itself may have brought about."""

_ONLY_BEFORE_OUTPUT = frozenset({Reason.LANE_GONE, Reason.VOCABULARY_MISMATCH, Reason.KV_MISMATCH})
"""The lane is not what it was: with nothing said yet another lane is better, afterwards any worker that can go on."""
_LOST_HOW: Mapping[Cause | None, str] = {Cause.SILENT: "answers no more", Cause.UNREACHABLE: "cannot be reached"}
_OTHER_LANE = _ONLY_BEFORE_OUTPUT | {Reason.LANE_LOST, Reason.NOT_READY, Reason.UPSTREAM_UNAVAILABLE}


def may_try_another_lane(error: MeshError) -> bool:
    """Whether a prompt that has produced nothing yet may begin again on another lane."""
    return error.reason in _OTHER_LANE


def may_try_another_model(error: MeshError) -> bool:
    """Whether another model may answer in the place of the one that failed so, with nothing said yet.

    It is ours that cannot, never its caller who may not: limits of a model are its capacity, all others are somebody's.
    """
    if error.reason is Reason.RATE_LIMITED:
        return error.metadata.get("scope") == "model"
    return error.reason is Reason.QUEUE_FULL or may_try_another_lane(error)


def cause_of(error: MeshError) -> Cause | None:
    """Why a worker let go; None: it did not, and the error is the request's own."""
    named = error.metadata.get("cause")
    match error.reason:
        case Reason.UPSTREAM_UNAVAILABLE | Reason.NOT_READY if named in _NAMES:
            return Cause(str(named))
        case Reason.UPSTREAM_UNAVAILABLE:
            return Cause.KILLED
        case Reason.CANCELLED:
            return Cause.GIVEN_UP
        case Reason.NOT_READY | Reason.QUEUE_FULL | Reason.LANE_GONE | Reason.VOCABULARY_MISMATCH | Reason.KV_MISMATCH:
            return Cause.REFUSED
        case _:
            return None


class Failures:
    """The workers that let go of one prompt, on all its lanes.

    Args:
        clock: seconds, monotonic.
        is_silent: whether the worker at an endpoint still says nothing; who speaks again had not died of anything.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        is_silent: Callable[[str], bool] = lambda endpoint: True,
    ) -> None:
        self.num_losses = 0
        self.last: MeshError | None = None
        self._clock = clock
        self._is_silent = is_silent
        self._deaths: list[tuple[Cause, str]] = []
        self._avoided_until: dict[str, float] = {}

    @property
    def avoided(self) -> set[str]:
        """Endpoints that should not get the prompt now."""
        now = self._clock()
        return {endpoint for endpoint, until in self._avoided_until.items() if now < until}

    @property
    def num_deaths(self) -> int:
        """Workers that died while they worked on the prompt."""
        return sum(cause is not Cause.SILENT or self._is_silent(endpoint) for cause, endpoint in self._deaths)

    def add(self, worker: Worker, error: MeshError, *, has_begun: bool) -> None:
        """Note that a worker let go of the prompt, which may go on elsewhere.

        Args:
            worker: who.
            error: how.
            has_begun: whether the caller has seen something of the answer.

        Raises:
            MeshError: it may not go on: the request's own fault, POISON_REQUEST, or too many losses.
        """
        cause = cause_of(error)
        if cause is None or (error.reason in _ONLY_BEFORE_OUTPUT and not has_begun):
            raise error
        avoided_s = BRIEFLY_AVOIDED_S if cause in (Cause.REFUSED, Cause.SILENT) else AVOIDED_S
        self._avoided_until[worker.endpoint] = self._clock() + avoided_s
        self.num_losses += 1
        self.last = _for_callers(error)
        if cause in DEATHS:
            self._deaths.append((cause, worker.endpoint))
        if cause in DEATHS and self.num_deaths >= MAX_DEATHS:
            raise MeshError(
                Reason.POISON_REQUEST,
                f"{self.num_deaths} workers were lost while they worked on this request; it gets no other one",
            ) from error
        if self.num_losses >= MAX_LOSSES:
            raise lane_lost() if has_begun else self.last from error


def lane_lost() -> MeshError:
    """A begun answer has nobody left to go on with it; it is never continued by other weights."""
    return MeshError(Reason.LANE_LOST, "the last worker that could go on with the answer is gone; ask again")


def _for_callers(error: MeshError) -> MeshError:
    """As callers are told: a worker's cancel is not theirs, and what a transport says names machines of ours."""
    if error.reason is Reason.CANCELLED:
        return MeshError(Reason.NOT_READY, "the worker let go of the request; try again", retry_after_s=RETRY_AFTER_S)
    if error.reason is Reason.UPSTREAM_UNAVAILABLE:
        what = _LOST_HOW.get(cause_of(error), "was lost")
        return MeshError(error.reason, f"the model's last worker {what}; try again", retry_after_s=RETRY_AFTER_S)
    return error
