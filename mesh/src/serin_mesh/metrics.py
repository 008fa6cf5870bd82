"""Prometheus metrics of this process: one registry, and what every RPC is counted by.

Labels come from a closed set: methods that this process serves, gRPC codes, our own reasons. Knows nothing about how
they are scraped.
"""

import functools

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@functools.cache
def registry() -> CollectorRegistry:
    """The registry of this process. Rooms add their own metrics to it, once a process."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def scrape() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(registry())


class RpcMetrics:
    """What every served RPC is counted by."""

    def __init__(self, into: CollectorRegistry) -> None:
        self.finished = Counter(
            "serin_rpc_finished", "RPCs served, by how they ended.", ["method", "code", "reason"], registry=into
        )
        self.seconds = Histogram(
            "serin_rpc_seconds",
            "Time from an RPC's arrival to its end.",
            ["method"],
            buckets=SECONDS_BUCKETS,
            registry=into,
        )
        self.running = Gauge("serin_rpc_running", "RPCs being served.", ["method"], registry=into)


@functools.cache
def rpc_metrics() -> RpcMetrics:
    """The RPC metrics of this process."""
    return RpcMetrics(registry())
