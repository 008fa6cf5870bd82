"""Prometheus metrics of the lines before models. Labels are models that were asked for, which are declared ones."""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serin_gateway.overload.turnstiles import Turnstiles


class OverloadMetrics(Collector):
    """Who waits, and how many answers are let through at once."""

    def __init__(self, turnstiles: Turnstiles, into: CollectorRegistry) -> None:
        self._turnstiles = turnstiles
        into.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All of them now."""
        waiting = GaugeMetricFamily(
            "serin_gateway_requests_waiting", "Requests in line for a model at this gateway.", labels=["model"]
        )
        limit = GaugeMetricFamily(
            "serin_gateway_concurrency_limit",
            "Answers of a model that this gateway lets through at once; no sample while nothing limits them.",
            labels=["model"],
        )
        for name, turnstile in sorted(self._turnstiles.by_model.items()):
            waiting.add_metric([name], len(turnstile.line))
            if not math.isinf(turnstile.limit.value):
                limit.add_metric([name], turnstile.limit.value)
        yield waiting
        yield limit
