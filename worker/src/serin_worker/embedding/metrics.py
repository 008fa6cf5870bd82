"""What a scrape says about an embedding model, by the names that dashboards know where there are such.

Figures are read when scraped; times are observed once a request. The only label is the model's name.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serin_worker.embedding.serving import EmbeddingServing
from serin_worker.metrics import seconds_histogram

if TYPE_CHECKING:
    from serin_worker.embedding.loop import Embedded


class EmbeddingCollector(Collector):
    """Gauges and counters of one embedding model, read from it when asked."""

    def __init__(self, serving: EmbeddingServing) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        """All of them, now."""
        loop, labels = self._serving.loop, [self._serving.model]
        counts = loop.counts
        gauges = {
            "vllm:num_requests_running": ("Inputs that are computed.", loop.num_running),
            "vllm:num_requests_waiting": ("Inputs that wait.", loop.num_waiting),
        }
        counters = {
            "vllm:prompt_tokens": ("Tokens of inputs.", counts.num_tokens),
            "serin_worker_padded_tokens": ("Tokens computed, padding included.", counts.num_padded_tokens),
            "serin_worker_embedded_inputs": ("Inputs computed.", counts.num_inputs),
            "serin_worker_steps": ("Batches.", counts.num_steps),
            "serin_worker_not_finite": ("Inputs whose vectors were not numbers.", counts.num_not_finite),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            gauge.add_metric(labels, value)
            yield gauge
        for name, (text, value) in counters.items():
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            counter.add_metric(labels, value)
            yield counter


class EmbeddingTimes:
    """Times of finished requests."""

    def __init__(self, into: CollectorRegistry, model: str) -> None:
        self._queue = seconds_histogram(
            into, model, "vllm:request_queue_time_seconds", "From arrival to the first batch."
        )
        self._whole = [
            seconds_histogram(into, model, name, "From arrival to the last vector.")
            for name in ("vllm:e2e_request_latency_seconds", "gen_ai_server_request_duration_seconds")
        ]
        labels = ["model_name", "finished_reason"]
        success = Counter("vllm:request_success", "Requests that ended well.", labels, registry=into)
        self._ended = success.labels(model, "stop")

    def observe(self, embedded: "Embedded") -> None:
        """A request ended well."""
        self._queue.observe(embedded.queue_s)
        for histogram in self._whole:
            histogram.observe(embedded.queue_s + embedded.compute_s)
        self._ended.inc()
