"""Which batches of which gateway were taken: each counts once, however often it is sent.

Knows nothing about what is in a batch.
"""

from collections import OrderedDict

MAX_LIVES = 1024
"""Lives of gateways that are remembered; the one that was silent longest is forgotten first."""


class BatchLedger:
    """The highest batch of each life of a gateway: of its name and the number that it drew when it started."""

    def __init__(self) -> None:
        self._taken: OrderedDict[tuple[str, int], int] = OrderedDict()

    def take(self, gateway: str, epoch: int, batch: int) -> bool:
        """Whether a batch is new; from now on it is not. Batches of one life grow."""
        life = (gateway, epoch)
        is_new = batch > self._taken.get(life, 0)
        if is_new:
            self._taken[life] = batch
        if life in self._taken:
            self._taken.move_to_end(life)
        if len(self._taken) > MAX_LIVES:
            self._taken.popitem(last=False)
        return is_new
