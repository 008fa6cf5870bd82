"""Prometheus metrics of the ledger. Knows nothing about requests."""

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Debts(Protocol):
    """What Redis has not heard of yet."""

    num_lost: int

    @property
    def num_owed(self) -> int:
        """Settlements that wait for Redis."""


class LedgerMetrics(Collector):
    """Settlements that wait for the state Redis, and those that were given up."""

    def __init__(self, debts: Debts, into: CollectorRegistry) -> None:
        self._debts = debts
        into.register(self)

    def collect(self) -> Iterable[Metric]:
        """Both now."""
        yield GaugeMetricFamily(
            "serin_gateway_ledger_owed", "Settlements that wait for the state Redis.", value=self._debts.num_owed
        )
        yield CounterMetricFamily(
            "serin_gateway_ledger_lost", "Settlements given up, as too many waited.", value=self._debts.num_lost
        )
