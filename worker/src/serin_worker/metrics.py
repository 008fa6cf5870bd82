"""What a scrape says about the engine: its own names, OpenTelemetry's, and those that dashboards know already.

Figures of the engine are read when scraped, so steps pay nothing; times are observed once a request. The only label is
the model's name, which a client cannot choose.
"""

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serin_worker.outputs import Summary
from serin_worker.serving import Serving

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)


class EngineCollector(Collector):
    """Gauges and counters of one engine, read from it when asked."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        """All of them, now."""
        serving, labels = self._serving, [self._serving.model]
        engine = serving.loop.engine
        scheduler, counts = engine.scheduler, engine.counts
        gauges = {
            "vllm:num_requests_running": ("Sequences that hold KV blocks.", scheduler.num_running),
            "vllm:num_requests_waiting": ("Sequences that wait for KV blocks.", scheduler.num_waiting),
            "vllm:kv_cache_usage_perc": ("Share of KV blocks in use, 0 to 1.", engine.pool.usage),
            "serin_worker_cached_blocks": ("KV blocks that a prefix can be found in.", engine.pool.num_cached),
        }
        counters = {
            "vllm:prefix_cache_queries": (
                "Tokens looked up in the prefix cache, once for a request.",
                scheduler.num_prefix_queries,
            ),
            "vllm:prefix_cache_hits": (
                "Tokens found in the prefix cache, once for a request.",
                scheduler.num_prefix_hits,
            ),
            "vllm:prompt_tokens": (
                "Prompt tokens, cached or computed.",
                counts.num_prompt_tokens,
            ),
            "vllm:generation_tokens": ("Tokens generated.", counts.num_output_tokens),
            "vllm:num_preemptions": ("Preemptions.", counts.num_preemptions),
            "serin_worker_steps": ("Engine steps.", counts.num_steps),
            "serin_worker_grammar_overruns": (
                "Requests whose grammar was too much work.",
                counts.num_grammar_overruns,
            ),
            "serin_worker_not_finite": (
                "Requests whose logits were not numbers.",
                counts.num_not_finite,
            ),
            "serin_worker_out_of_memory": (
                "Requests whose step needed more memory than there was.",
                counts.num_out_of_memory,
            ),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            gauge.add_metric(labels, value)
            yield gauge
        for name, (text, value) in counters.items():
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            counter.add_metric(labels, value)
            yield counter
        about = serving.about
        info = GaugeMetricFamily(
            "vllm:cache_config_info", "Shape of the KV cache.", labels=["block_size", "num_gpu_blocks", "model_name"]
        )
        info.add_metric([str(about.block_size), str(about.num_blocks), serving.model], 1)
        yield info


def seconds_histogram(
    into: CollectorRegistry, model: str, name: str, text: str, buckets: tuple[float, ...] = _SECONDS
) -> Histogram:
    """A histogram of seconds whose only label is the model's name."""
    return Histogram(name, text, ["model_name"], buckets=buckets, registry=into).labels(model)


class RequestTimes:
    """Times of finished requests."""

    def __init__(self, into: CollectorRegistry, model: str) -> None:
        histogram = partial(seconds_histogram, into, model)

        self._queue = histogram("vllm:request_queue_time_seconds", "From arrival to the first step.")
        self._prefill = histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.")
        self._decode = histogram("vllm:request_decode_time_seconds", "From the first token to the last.")
        self._whole = [
            histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token."),
            histogram("gen_ai_server_request_duration_seconds", "From arrival to the last token."),
        ]
        self._first = [
            histogram("vllm:time_to_first_token_seconds", "From arrival to the first token."),
            histogram("gen_ai_server_time_to_first_token_seconds", "From arrival to the first token."),
        ]
        self._each = [
            histogram("vllm:inter_token_latency_seconds", "Between tokens, mean of a request.", _TOKEN_SECONDS),
            histogram(
                "gen_ai_server_time_per_output_token_seconds", "Between tokens, mean of a request.", _TOKEN_SECONDS
            ),
        ]
        labels = ["model_name", "finished_reason"]
        success = Counter("vllm:request_success", "Requests that ended well.", labels, registry=into)
        self._ended = {reason: success.labels(model, reason) for reason in ("stop", "length")}

    def observe(self, summary: Summary, reason: str, num_choices: int) -> None:
        """A request ended well; ``reason`` is that of its last choice."""
        first_s = summary.queue_s + summary.prefill_s
        self._queue.observe(summary.queue_s)
        self._prefill.observe(summary.prefill_s)
        self._decode.observe(summary.decode_s)
        for histogram in self._whole:
            histogram.observe(first_s + summary.decode_s)
        for histogram in self._first:
            histogram.observe(first_s)
        num_gaps = summary.num_output_tokens / num_choices - 1
        if num_gaps > 0:
            for histogram in self._each:
                histogram.observe(summary.decode_s / num_gaps)
        self._ended[reason].inc()
