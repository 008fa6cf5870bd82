"""What is remembered of canaries that were never ready: processes that came and went, and when one was last seen.

Knows nothing about what follows from it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.sight import Sight


@dataclass(slots=True)
class _Newborn:
    seen_at: float
    starts: set[tuple[str, float]] = field(default_factory=set)


class Cradle:
    """Canaries by rollout. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newborns: dict[str, _Newborn] = {}

    def note(self, rollout: Rollout, seen: Sight) -> tuple[int, float]:
        """How many processes of a rollout's canary have ended before it was ever ready, and how long it is gone."""
        now = self._clock()
        newborn = self._newborns.setdefault(rollout.id, _Newborn(now))
        if rollout.was_able:
            newborn.starts.clear()
        else:
            newborn.starts |= seen.starts
        if seen.starts:
            newborn.seen_at = now
        return len(newborn.starts - seen.starts), now - newborn.seen_at

    def forget_all_but(self, rollouts: Iterable[str]) -> None:
        """Only these run."""
        running = set(rollouts)
        self._newborns = {one: newborn for one, newborn in self._newborns.items() if one in running}
