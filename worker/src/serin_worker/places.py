"""Which sequences run: in places for everybody, and in spare ones for tenants that hold few.

While a place is free anybody takes it. Behind the last one there are spare places: a tenant may take one while it holds
fewer places, of both kinds, than are spare still (dynamic thresholds: Choudhury and Hahne 1998). So whoever fills all
places gets none of them, several newcomers share them, and the last one is for who holds nothing. Knows nothing about
blocks, order or steps.
"""

from collections import Counter
from collections.abc import Iterator

from serin_worker.sequence import Sequence


class Places:
    """Running sequences, in the order in which they began.

    Args:
        num_places: for everybody, at least 1.
        num_spare: beside these, for tenants that hold few.
    """

    def __init__(self, num_places: int, num_spare: int = 0) -> None:
        self._num_places = num_places
        self._num_spare = num_spare
        self._is_spare: dict[Sequence, bool] = {}
        self._num_in_spare = 0
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._is_spare)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._is_spare)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._is_spare

    @property
    def is_full(self) -> bool:
        """Whether only spare places are left, or none."""
        return len(self._is_spare) - self._num_in_spare >= self._num_places

    @property
    def is_crammed(self) -> bool:
        """Whether no place is left, spare ones included."""
        return self.is_full and self._num_in_spare >= self._num_spare

    def has_room_for(self, tenant: str) -> bool:
        """Whether one more sequence of a tenant may run."""
        return not self.is_full or self._held[tenant] < self._num_spare - self._num_in_spare

    def is_spare(self, sequence: Sequence) -> bool:
        """Whether a running sequence took a spare place."""
        return self._is_spare[sequence]

    def take(self, sequence: Sequence) -> None:
        """Let a sequence run; there is room for its tenant."""
        assert self.has_room_for(sequence.group.request.tenant)
        is_spare = self._is_spare[sequence] = self.is_full
        self._num_in_spare += is_spare
        self._held[sequence.group.request.tenant] += 1

    def leave(self, sequence: Sequence) -> None:
        """A sequence that ran does not any more."""
        tenant = sequence.group.request.tenant
        self._num_in_spare -= self._is_spare.pop(sequence)
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
