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
        self._usual: dict[str, list[float]] = {}

    def compare(self, stratum: str, value: float) -> float | None:
        """Logarithm of ``value`` over the usual; None: the old lane has shown too little of this stratum."""
        count, usual = self._usual.get(stratum, (0, 0.0))
        return math.log(value) - usual if count >= MIN_TAUGHT else None

    def teach(self, stratum: str, value: float) -> None:
        """One value of the old lane, above 0."""
        known = self._usual.get(stratum)
        if known is None:
            if len(self._usual) >= MAX_STRATA:
                return
            known = self._usual[stratum] = [0, 0.0]
        known[0] = min(known[0] + 1, MEMORY)
        known[1] += (math.log(value) - known[1]) / known[0]

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {stratum: list(known) for stratum, known in self._usual.items()}

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> "Strata":
        """What :meth:`dump` gave."""
        strata = cls()
        strata._usual = {stratum: list(known) for stratum, known in dumped.items()}
        return strata


def bucket(count: int, per_doubling: int) -> int:
    """Counts of about the same size: 0 to 4 each alone, then ``per_doubling`` buckets for each doubling."""
    return count if count <= 4 else 4 + math.ceil(math.log2(count / 4) * per_doubling)
