"""A judge by thresholds, as Argo Rollouts' analysis and Flagger's checks work: one measurement each interval.

In each interval in which the new lane had requests, the share of failures and the mean time per token are compared with
limits; a measurement outside them is a failed one. More than so many failed ones take the version back, so many
measurements in all promote it. Requests count one by one; nothing is known of sessions, luck or looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout_traffic import CANARY, Seen

INTERVAL_S = 60.0


@dataclass(frozen=True)
class Limits:
    """A configuration.

    Attributes:
        max_errors: largest share of failures in an interval.
        max_slower: largest mean time per token, as a factor on the old lane's in the same interval.
        max_failed: failed measurements that are borne; one more takes the version back.
        num_measured: measurements after which it is promoted.
        max_golden_loss: largest loss of golden score, over the questions asked so far.
    """

    name: str
    max_errors: float
    max_slower: float
    max_failed: int
    num_measured: int = 40
    max_golden_loss: float = 0.05


_ALL = (
    Limits("errors > 1 %: more than 4 of 120", 0.01, 1.2, 4, num_measured=120),
    Limits("errors > 1 %: more than 9 of 120", 0.01, 1.2, 9, num_measured=120),
    Limits("errors > 1 %: more than 4 of 40", 0.01, 1.2, 4),
    Limits("errors > 5 %: more than 4 of 40", 0.05, 1.2, 4),
    Limits("errors > 5 %: more than 9 of 40", 0.05, 1.2, 9),
    Limits("errors > 10 %: more than 4 of 40", 0.10, 1.2, 4),
    Limits("errors > 10 %: more than 9 of 40", 0.10, 1.2, 9),
)
LIMITS: Mapping[str, Limits] = {limits.name: limits for limits in _ALL}


class ThresholdJudge:
    """One rollout's."""

    def __init__(self, limits: Limits, began: float, warm_up_s: float) -> None:
        self._limits = limits
        self._counts_from = began + warm_up_s
        self._ends = self._counts_from + INTERVAL_S
        self._requests = [0, 0]
        self._failures = 0
        self._token_s = [0.0, 0.0]
        self._answers = [0, 0]
        self._golden = [0.0, 0.0, 0.0]
        self._num_measured = 0
        self._num_failed = 0
        self.num_requests = 0
        self._sessions: set[int] = set()

    @property
    def num_sessions(self) -> int:
        """Sessions that met the new lane."""
        return len(self._sessions)

    def observe(self, seen: Seen) -> None:
        """One finished request."""
        is_new = seen.lane == CANARY
        if is_new:
            self.num_requests += 1
            self._sessions.add(seen.session)
        if seen.finished_at < self._counts_from:
            return
        while seen.finished_at >= self._ends:
            self._measure()
            self._ends += INTERVAL_S
        self._requests[is_new] += 1
        self._failures += is_new and seen.reason != "ok"
        if seen.seconds_per_token:
            self._token_s[is_new] += seen.seconds_per_token
            self._answers[is_new] += 1

    def golden(self, stable: float, canary: float) -> None:
        """One golden question."""
        self._golden = [self._golden[0] + stable, self._golden[1] + canary, self._golden[2] + 1]

    def verdict(self) -> str:
        """What it says now."""
        if self._num_failed > self._limits.max_failed:
            return "abort"
        return "promote" if self._num_measured >= self._limits.num_measured else "wait"

    def _measure(self) -> None:
        if not self._requests[1] or self.verdict() != "wait":
            return
        failed = self._failures / self._requests[1] > self._limits.max_errors
        if all(self._answers):
            old, new = (total / number for total, number in zip(self._token_s, self._answers, strict=True))
            failed |= new > self._limits.max_slower * old
        if self._golden[2] >= 20:
            failed |= (self._golden[0] - self._golden[1]) / self._golden[2] > self._limits.max_golden_loss
        self._num_measured += 1
        self._num_failed += failed
        self._requests, self._failures = [0, 0], 0
        self._token_s, self._answers = [0.0, 0.0], [0, 0]
