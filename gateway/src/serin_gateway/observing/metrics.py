"""Prometheus metrics of what is observed. Labels come from a closed set. Knows nothing about requests."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.shadow import OUTCOMES, ShadowScorer


class ObservingMetrics(Collector):
    """What was lost of what should have been remembered or reported, and what became of shadow scoring."""

    def __init__(
        self, buffer: ObservationBuffer, keeper: RecordKeeper, shadow: ShadowScorer, into: CollectorRegistry
    ) -> None:
        self._buffer = buffer
        self._keeper = keeper
        self._shadow = shadow
        into.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """All of them now."""
        lost = CounterMetricFamily(
            "serin_gateway_observations_dropped",
            "Observations that no control plane took, and records of requests that were not stored.",
            labels=["kind"],
        )
        lost.add_metric(["observation"], self._buffer.num_dropped)
        lost.add_metric(["record"], self._keeper.num_dropped)
        yield lost
        scores = CounterMetricFamily(
            "serin_gateway_shadow_scores", "Answers drawn to be scored on two lanes, by outcome.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            scores.add_metric([outcome], self._shadow.outcomes[outcome])
        yield scores
