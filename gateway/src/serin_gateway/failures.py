"""What a worker's failure means for the prompt it was working on: go on elsewhere, or give up and say why.

Knows nothing about how work is placed or resumed.
"""

from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker

MAX_DEATHS = 2
"""A prompt that this many workers died of is not given to another one."""

_GO_ON = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY, Reason.QUEUE_FULL, Reason.CANCELLED})
_OTHER_LANE = frozenset(
    {
        Reason.LANE_GONE,
        Reason.LANE_LOST,
        Reason.NOT_READY,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.VOCABULARY_MISMATCH,
        Reason.KV_MISMATCH,
    }
)
_NEVER_REACHED = ("failed to connect", "Connection refused", "No route to host", "name resolution")
"""In a transport's message: the call never reached a worker, so it cannot have died of it."""


def may_try_another_lane(error: MeshError) -> bool:
    """Whether a prompt that has produced nothing yet may begin again on another lane."""
    return error.reason in _OTHER_LANE


class Failures:
    """The workers that failed one prompt."""

    def __init__(self) -> None:
        self.instances: set[str] = set()
        self.num_deaths = 0
        self.last: MeshError | None = None

    def add(self, worker: Worker, error: MeshError) -> None:
        """Note a failure after which the prompt may go on elsewhere.

        Raises:
            MeshError: it may not: the request's own fault, or POISON_REQUEST.
        """
        if error.reason not in _GO_ON:
            raise error
        self.instances.add(worker.instance)
        self.last = error
        if error.reason is Reason.UPSTREAM_UNAVAILABLE and not any(part in error.message for part in _NEVER_REACHED):
            self.num_deaths += 1
        if self.num_deaths >= MAX_DEATHS:
            raise MeshError(
                Reason.POISON_REQUEST,
                f"{self.num_deaths} workers were lost while they worked on this request; it gets no other one",
            ) from error
