"""Reads a process's Prometheus metrics."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from harness.clients import plain_http
from harness.eventually import eventually


async def read_metrics(http_endpoint: str, headers: dict[str, str] | None = None) -> dict[str, float]:
    """Sum of the samples of each name (labels added up) at ``host:port``."""
    async with plain_http(timeout=10) as client:
        response = await client.get(f"http://{http_endpoint}/metrics", headers=headers)
        response.raise_for_status()
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


async def await_metrics(http_endpoint: str, condition: Callable[[dict[str, float]], object]) -> dict[str, float]:
    """Wait until the metrics meet a condition."""
    return await eventually(lambda: read_metrics(http_endpoint), condition, f"metrics of {http_endpoint}")


def metric_names(families: Iterable[Metric]) -> set[str]:
    """Names that can be asked for, also of metrics that have no sample yet."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
    return {f"{family.name}{suffix}" for family in families for suffix in suffixes.get(family.type, ("",))}
