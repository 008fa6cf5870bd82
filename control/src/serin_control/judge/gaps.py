"""Times of which nothing counts, on neither lane: the old version could take no calls.

What fails in such a time is the fault of whatever took the old version away. Counted, it would excuse as many failures
of the new one for the rest of the rollout. Knows nothing about why a time is left out.
"""

from collections import deque
from typing import Any

MARGIN_S = 5.0
"""So much before and after is left out too: that somebody is gone is noticed seconds later, and clocks differ."""

MAX_GAPS = 64


class Gaps:
    """Times in seconds since 1970, in the order they were told. The oldest are forgotten, not their length."""

    def __init__(self) -> None:
        self._gaps: deque[list[float]] = deque(maxlen=MAX_GAPS)
        self._total_s = 0.0

    def add(self, since: float, until: float) -> float | None:
        """Leave this time out; returns since when, where that is news: it is no more of the time that was told last."""
        since, until = since - MARGIN_S, until + MARGIN_S
        if self._gaps and since <= self._gaps[-1][1]:
            last = self._gaps[-1]
            self._total_s += max(0.0, until - last[1])
            last[1] = max(last[1], until)
            return None
        self._gaps.append([since, until])
        self._total_s += until - since
        return since

    def cover(self, since: float, until: float) -> bool:
        """Whether any of this time is left out."""
        return any(since <= end and until >= start for start, end in self._gaps)

    @property
    def total_s(self) -> float:
        """Seconds that are left out."""
        return self._total_s

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"gaps": [list(gap) for gap in self._gaps], "total_s": self._total_s}

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> "Gaps":
        """What :meth:`dump` gave."""
        gaps = cls()
        gaps._gaps.extend([start, end] for start, end in dumped["gaps"])
        gaps._total_s = dumped["total_s"]
        return gaps
