"""How many answers may be made at once, learned from what the workers report.

Additive increase, multiplicative decrease (Chiu and Jain 1989): while workers have a short line the limit grows, when
theirs grows it shrinks, so the line forms here, where it is fair and can be refused early. Gateways that share workers
come to share them evenly. Knows nothing about requests.
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
SHRINK_EVERY_S = 1.0
"""A smaller limit shows in the reports only after some answers have ended."""


class ConcurrencyLimit:
    """The limit of one model.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shrunk_at = -math.inf
        self.value = math.inf
        self.num_spare = 0
        """Requests let in beyond it, of tenants for which nothing else was."""

    def adapt(self, num_places: int, num_waiting: int, num_running: int, *, is_contended: bool) -> None:
        """Take a report in.

        Args:
            num_places: sequences that the model's workers run at once; 0: unknown, nothing is limited then.
            num_waiting: sequences that wait before them.
            num_running: answers that were let through here and run.
            is_contended: somebody waits here.
        """
        if not num_places:
            self.value = math.inf
            return
        self.num_spare = max(1, num_places // SPARE_DIVISOR)
        most = HEADROOM * num_places
        self.value = min(self.value, most)
        short = max(1.0, SHORT_LINE * num_places)
        now = self._clock()
        if num_waiting > short:
            if now - self._shrunk_at >= SHRINK_EVERY_S:
                self._shrunk_at = now
                self.value = max(1.0, SHRINK * min(self.value, max(1, num_running)))
        elif is_contended or num_waiting == 0:
            self.value = min(most, self.value + max(1.0, GROW * num_places))
