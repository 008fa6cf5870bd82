"""How long records are kept: a day, or as long as a bounded number of them lasts.

Knows nothing about records.
"""

import math

LONGEST_S = 86_400
SHORTEST_S = 60
HALF_LIFE_S = 60.0


class Retention:
    """Turns a bound on records into a time to live, by the rate at which they come.

    Args:
        most: records that may be kept at a time, about.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rate_per_s = 0.0
        self._heard_at: float | None = None

    def ttl_s(self, num_new: int, now: float) -> int:
        """Seconds that new records are kept, given how many came since the last call and the monotonic time."""
        since_s = HALF_LIFE_S if self._heard_at is None else max(0.001, now - self._heard_at)
        self._heard_at = now
        fresh = 1 - math.exp2(-since_s / HALF_LIFE_S)
        self._rate_per_s += fresh * (num_new / since_s - self._rate_per_s)
        if self._rate_per_s * LONGEST_S <= self._most:
            return LONGEST_S
        return max(SHORTEST_S, int(self._most / self._rate_per_s))
