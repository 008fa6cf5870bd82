"""Which tokenizers the text of answers that have begun is asked of: their lane's, or any of their vocabulary.

A lane is gone for good when it was withdrawn or its last worker died, and for some seconds while its only tokenizer
starts again; from here both look the same. So two ways are tried in turn: the lane, where nobody of another vocabulary
can answer, and whoever the control plane's weights lead to, who refuses ids that are not his own. Knows nothing about
how long that is worth while.
"""

from serin_mesh.call import LANE_KEY, VOCABULARY_KEY
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Lane

_AWAY = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY, Reason.LANE_GONE})


class BegunRoute:
    """The way that the next call takes.

    Args:
        lane: the lane that the answers began on.
    """

    def __init__(self, lane: Lane) -> None:
        self.names_lane = True
        """Whether the call is for tokenizers of the lane alone."""
        self._lane = lane

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What leads a call there."""
        vocabulary = (VOCABULARY_KEY, self._lane.vocabulary_digest)
        return ((LANE_KEY, self._lane.lane), vocabulary) if self.names_lane else (vocabulary,)

    def failed(self, error: MeshError) -> bool:
        """A call that went this way has failed: choose the next one's; False: no other call would fare better."""
        if error.reason is Reason.VOCABULARY_MISMATCH and not self.names_lane:
            self.names_lane = True
            return True
        if error.reason is Reason.LANE_GONE:
            self.names_lane = False
        return error.reason in _AWAY
