"""How many answers may be made at once, learned from what the workers report, and from answers that come too late.

Additive increase, multiplicative decrease (Chiu and Jain 1989): while workers have a short line the limit grows, when
theirs grows it shrinks, so the line forms here, where it is fair and can be refused early. It shrinks too while answers
take longer than their callers wait: fewer at once are each sooner whole. Gateways that share workers come to share them
evenly. Knows nothing about requests.
"""

import math
from collections.abc import Callable

HEADROOM = 1.25
"""Of the workers' places: a short line before each worker keeps its batch full."""
SHORT_LINE = 0.1
"""Of the workers' places (at least one): a line up to this is short."""
SPARE_DIVISOR = 8
"""Of the workers' places: so many tenants for which nothing runs may go beyond the limit, at least one."""
GROW = 0.05
SHRINK = 0.85
SHRINK_IF_LATE = 0.6
"""Nobody knows how much too late an answer was that its caller's time has cut off."""
SHRINK_EVERY_S = 1.0
"""A smaller limit shows in the reports only after some answers have ended."""
GROW_IDLE_EVERY_S = 1.0
"""What was learned is forgotten slowly where nobody needs more."""
CALM, FULL, LATE = 0.1, 0.85, 1.0
"""Parts of their callers' patience that answers take: up to the first nobody has to be wary, from the second on no more
of them are made at once than now, and from the third on fewer."""
WARY_S = 60.0
"""For so long after it shrank for that the limit grows by a twentieth of itself, and as often as an answer takes."""


class ConcurrencyLimit:
    """The limit of one model.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shrunk_at = self._grown_at = self._late_at = -math.inf
        self._most_running = 0
        """Since it shrank: those that were too late may all be gone by now, as they began together."""
        self.value = math.inf
        self.num_spare = 0
        """Requests let in beyond it, of tenants for which nothing else was."""

    def adapt(
        self,
        num_places: int,
        num_waiting: int,
        num_running: int,
        *,
        is_contended: bool,
        pressure: float | None = 0.0,
        answer_s: float = 0.0,
    ) -> bool:
        """Take a report in.

        Args:
            num_places: sequences that the model's workers run at once; 0: unknown, nothing is limited then.
            num_waiting: sequences that wait before them.
            num_running: answers that were let through here and run.
            is_contended: somebody waits here.
            pressure: what most answers take of the time that their callers have, 1: all of it; None: not known yet.
            answer_s: what an answer takes: so late it shows what another limit has changed in that.

        Returns:
            Whether fewer are let through because answers come too late.
        """
        if not num_places:
            self.value = math.inf
            return False
        self.num_spare = max(1, num_places // SPARE_DIVISOR)
        most = HEADROOM * num_places
        self.value = min(self.value, most)
        short = max(1.0, SHORT_LINE * num_places)
        now = self._clock()
        self._most_running = max(self._most_running, num_running)
        is_late = pressure is not None and pressure > LATE
        if num_waiting > short or is_late:
            if now - self._shrunk_at < (max(SHRINK_EVERY_S, answer_s) if is_late else SHRINK_EVERY_S):
                return False
            self._shrunk_at = now
            self._late_at = now if is_late else self._late_at
            part, ran = (SHRINK_IF_LATE, self._most_running) if is_late else (SHRINK, num_running)
            self.value = max(1.0, part * min(self.value, max(1, ran)))
            self._most_running = num_running
            return is_late
        if (is_contended or num_waiting == 0) and (pressure is None or pressure <= FULL):
            step, pause_s = max(1.0, GROW * num_places), 0.0 if is_contended else GROW_IDLE_EVERY_S
            is_near = pressure is None or pressure > CALM
            if is_near and now - self._late_at < WARY_S:  # as far as it has just shown to be well, and a little farther
                step, pause_s = GROW * self.value, max(GROW_IDLE_EVERY_S, answer_s)
            if now - max(self._shrunk_at, self._grown_at) >= pause_s:
                self._grown_at = now
                self.value = min(most, self.value + step)
        return False
