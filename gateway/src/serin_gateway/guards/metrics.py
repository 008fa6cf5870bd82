"""Prometheus metrics of guards. Labels come from closed sets. Knows nothing about requests."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from serin_gateway.guards.decisions import Decisions


class GuardMetrics:
    """What guards decided, and what of it found no room on its way into the audit log.

    Args:
        into: where they are registered.
        num_lost: requests whose decisions were lost, so far.
    """

    def __init__(self, into: CollectorRegistry, num_lost: Callable[[], int] = lambda: 0) -> None:
        self.registry = into
        self.decisions = Counter(
            "serin_guard_decisions",
            "Findings of guards, by detector, by what happened with them, and by where the text came from; failed: the "
            "detector could not look.",
            ["detector", "action", "direction"],
            registry=into,
        )
        self.lost = Gauge(
            "serin_guard_unwitnessed_requests",
            "Requests whose decisions found no room on their way into the audit log, since the start.",
            registry=into,
        )
        self.lost.set_function(num_lost)

    def count(self, decisions: Decisions) -> None:
        """Count those of a request."""
        for one in decisions:
            self.decisions.labels(one.detector, one.action, one.direction).inc(one.count)
