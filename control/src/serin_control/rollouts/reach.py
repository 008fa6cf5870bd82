"""Whether the store answers: now, when it was last asked, and for how long again.

Knows nothing about what is asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENT_S = 1.0
"""A store that owes an answer for so long counts as away, long before the call to it gives up."""

BACK_S = 3.0
"""When the store is back nothing moves on for so long: other control planes may have taken something back meanwhile."""


class Reach:
    """One control plane's way to its store. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_away = False
        self._asked_at: float | None = None
        self._back_at = float("-inf")

    @property
    def is_cut_off(self) -> bool:
        """Whether the store did not answer when it was last asked, or owes an answer for too long."""
        return self._is_away or (self._asked_at is not None and self._clock() - self._asked_at >= SILENT_S)

    @property
    def is_steady(self) -> bool:
        """Whether it is not back from an absence only just now."""
        return self._clock() - self._back_at >= BACK_S

    def failed(self) -> None:
        """It did not answer."""
        self._is_away = True

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A block that asks it: what leaves the block without an error was answered."""
        self._asked_at = asked_at = self._clock()
        try:
            yield
        finally:
            self._asked_at = None
        # Half of it: others, who may have taken something back for its silence, did not ask at the same moment.
        if self._is_away or self._clock() - asked_at >= SILENT_S / 2:
            self._is_away, self._back_at = False, self._clock()
