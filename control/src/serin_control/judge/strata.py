"""What a latency should have been: the old lane's usual value at the same uncached tokens and batch load.

A new lane that gets 1 % of the traffic runs emptier workers with colder caches. Compared stratum by stratum, that is
not taken for a difference. Knows nothing about lanes, and is taught by the old one only.
"""

import math
from typing import Any

MIN_TAUGHT = 20
MEMORY = 500
MAX_STRATA = 1024


class Strata:
    """Usual logarithms, by stratum; a stratum forgets what is longer ago than its last 500 values."""

    def __init__(self) -> None:
        self._usual: dict[int, list[float]] = {}

    def compare(self, stratum: int, value: float, teach: bool) -> float | None:
        """Logarithm of ``value``, above 0, over the usual; None: the old lane has shown too little of this stratum.

        Args:
            stratum: its number.
            value: what it was.
            teach: whether it is of the old lane and says what is usual from now on.
        """
        logarithm = math.log(value)
        known = self._usual.get(stratum)
        ratio = logarithm - known[1] if known is not None and known[0] >= MIN_TAUGHT else None
        if teach:
            if known is None:
                if len(self._usual) >= MAX_STRATA:
                    return ratio
                known = self._usual[stratum] = [0, 0.0]
            if known[0] < MEMORY:
                known[0] += 1
            known[1] += (logarithm - known[1]) / known[0]
        return ratio

    def dump(self) -> list[Any]:
        """As JSON."""
        return [[stratum, *known] for stratum, known in self._usual.items()]

    @classmethod
    def load(cls, dumped: list[Any]) -> "Strata":
        """What :meth:`dump` gave."""
        strata = cls()
        strata._usual = {stratum: [count, usual] for stratum, count, usual in dumped}
        return strata


def bucket(count: int, per_doubling: int) -> int:
    """Counts of about the same size: 0 to 4 each alone, then ``per_doubling`` buckets for each doubling."""
    return count if count <= 4 else 4 + math.ceil(math.log2(count / 4) * per_doubling)
