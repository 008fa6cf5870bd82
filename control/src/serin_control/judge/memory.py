"""Whether a process leaks: how much its memory grows with the requests it has served.

Growth per 1,000 requests is taken over windows of one process; one window is one sample. The test is of the median
(a sign test that may be looked at any time; Howard and Ramdas, Sequential estimation of quantiles with applications
to A/B testing and best-arm identification, 2022): a process that does not leak grows by more than is tolerated in at
most half of its windows, however large the jumps of an allocator are. The old lane's median is what is normal.

Knows nothing about lanes, workers or time of day.
"""

import bisect
import functools
import math
from collections import deque
from typing import Any

from serin_control.judge.observation import ProcessMemory

WINDOW_S = 10.0
WINDOW_REQUESTS = 50
MAX_WINDOWS = 256
MAX_PROCESSES = 256
PER_REQUESTS = 1000


class Growth:
    """Growth of one arm's processes, in bytes per 1,000 requests. What a process does at first is left out."""

    def __init__(self, warm_up_s: float) -> None:
        self._warm_up_s = warm_up_s
        self._windows: deque[float] = deque(maxlen=MAX_WINDOWS)
        self._starts: dict[str, list[float]] = {}
        self._first_seen: dict[str, float] = {}

    def add(self, sample: ProcessMemory) -> None:
        """One sample of one process."""
        if sample.instance not in self._first_seen:
            if len(self._first_seen) >= MAX_PROCESSES:
                oldest = next(iter(self._first_seen))
                del self._first_seen[oldest]
                self._starts.pop(oldest, None)
            self._first_seen[sample.instance] = sample.at
        if sample.at < self._first_seen[sample.instance] + self._warm_up_s:
            return
        start = self._starts.get(sample.instance)
        here = [sample.at, float(sample.resident_bytes), float(sample.num_requests)]
        if start is None or sample.num_requests < start[2]:
            self._starts[sample.instance] = here
            return
        num_requests = sample.num_requests - start[2]
        if num_requests >= WINDOW_REQUESTS and sample.at - start[0] >= WINDOW_S:
            self._windows.append((sample.resident_bytes - start[1]) / num_requests * PER_REQUESTS)
            self._starts[sample.instance] = here

    @property
    def num_windows(self) -> int:
        """Windows that are known."""
        return len(self._windows)

    @property
    def num_processes(self) -> int:
        """Processes that were seen."""
        return len(self._first_seen)

    @property
    def median(self) -> float:
        """Usual growth; 0 while nothing is known."""
        ordered = sorted(self._windows)
        if not ordered:
            return 0.0
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def evidence_above(self, bytes_per_1000: float) -> float:
        """Logarithm of the evidence that the median growth is above it."""
        return _sign_evidence(sum(window > bytes_per_1000 for window in self._windows), len(self._windows))

    def evidence_below(self, bytes_per_1000: float) -> float:
        """Logarithm of the evidence that the median growth is below it."""
        return _sign_evidence(sum(window < bytes_per_1000 for window in self._windows), len(self._windows))

    def interval(self, low_error: float, high_error: float) -> tuple[float, float]:
        """Medians that stand; an end that nothing bounds is infinitely far."""
        ordered = sorted(self._windows)
        num_low, num_high = (_hits_needed(len(ordered), -math.log(error)) for error in (low_error, high_error))
        low = -math.inf if num_low is None else ordered[len(ordered) - num_low]
        high = math.inf if num_high is None else ordered[num_high - 1]
        return low, max(low, high)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"windows": list(self._windows), "starts": dict(self._starts), "first_seen": dict(self._first_seen)}

    @classmethod
    def load(cls, warm_up_s: float, dumped: dict[str, Any]) -> "Growth":
        """What :meth:`dump` gave."""
        growth = cls(warm_up_s)
        growth._windows.extend(dumped["windows"])
        growth._starts = {instance: list(start) for instance, start in dumped["starts"].items()}
        growth._first_seen = dict(dumped["first_seen"])
        return growth


def fewest_windows(error_rate: float) -> int:
    """Windows that clear a process if none of them grows by what is tolerated."""
    needed = -math.log(error_rate)
    return next(num for num in range(1, MAX_WINDOWS + 1) if _sign_evidence(num, num) >= needed)


def _hits_needed(num_windows: int, evidence: float) -> int | None:
    """Fewest hits that are that much evidence; None: not even all of them."""
    hits = range(num_windows + 1)
    fewest = bisect.bisect_left(hits, evidence, key=lambda num_hits: _sign_evidence(num_hits, num_windows))
    return fewest if 0 < fewest <= num_windows else None


@functools.lru_cache(maxsize=4096)
def _sign_evidence(num_hits: int, num_windows: int) -> float:
    """Evidence that hits are likelier than not: the mixture over all likelihoods from one half to one."""
    if not num_windows:
        return 0.0
    above_half = sum(math.comb(num_windows + 1, k) for k in range(num_hits + 1))
    log_share = math.log(above_half) - (num_windows + 1) * math.log(2)
    log_beta = -math.log(num_windows + 1) - math.log(math.comb(num_windows, num_hits))
    return math.log(2) + num_windows * math.log(2) + log_beta + log_share
