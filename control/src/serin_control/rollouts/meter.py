"""How many sessions and requests of each model come in: what a forecast is made from when nobody names a rate.

Knows nothing about lanes or rollouts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_S = 60.0
MAX_SESSIONS = 20_000


@dataclass(slots=True)
class _Window:
    began: float
    num_requests: int = 0
    sessions: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Rate:
    """New sessions a second, and requests of each. 0 sessions: nothing was seen."""

    sessions_per_s: float = 0.0
    requests_per_session: float = 1.0


class Meter:
    """Counts in windows of a minute, a bounded number of sessions in each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._now: dict[str, _Window] = {}
        self._last: dict[str, Rate] = {}

    def note(self, model: str, session: int) -> None:
        """One request of a session has ended."""
        window = self._current(model)
        window.num_requests += 1
        if len(window.sessions) < MAX_SESSIONS:
            window.sessions.add(session)

    def rate(self, model: str) -> Rate:
        """The rate of the last whole window, or of the one that runs where there is none."""
        window = self._current(model)
        return self._last.get(model) or _rate(window, max(1.0, self._clock() - window.began))

    def _current(self, model: str) -> _Window:
        now = self._clock()
        window = self._now.get(model)
        if window is None:
            window = self._now[model] = _Window(now)
        elif now - window.began >= WINDOW_S:
            self._last[model] = _rate(window, now - window.began)
            window = self._now[model] = _Window(now)
        return window


def _rate(window: _Window, seconds: float) -> Rate:
    num_sessions = len(window.sessions)
    return Rate(num_sessions / seconds, window.num_requests / num_sessions if num_sessions else 1.0)
