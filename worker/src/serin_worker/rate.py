"""Requests finished per second, over the last ten seconds.

Knows nothing about requests.
"""

from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0


class RequestRate:
    """A sliding count in seconds. Written by one thread, read by any."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: deque[tuple[int, int]] = deque(maxlen=int(WINDOW_S) + 1)

    def note(self) -> None:
        """One more, now."""
        second = int(self._clock())
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + 1)
        else:
            self._counts.append((second, 1))

    def per_s(self) -> float:
        """Mean of the window."""
        since = self._clock() - WINDOW_S
        return sum(count for second, count in tuple(self._counts) if second >= since) / WINDOW_S
