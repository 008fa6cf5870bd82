"""What a scrape says about the cache; read when scraped, without labels a client could choose."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serin_cache_svc.prefix_index import PrefixIndex
from serin_cache_svc.tally import Tally


class CacheCollector(Collector):
    """Counters and gauges of one cache."""

    def __init__(self, tally: Tally, index: PrefixIndex) -> None:
        self._tally = tally
        self._index = index

    def collect(self) -> Iterator[Metric]:
        """All of them, now."""
        tally = self._tally
        recalls = CounterMetricFamily("serin_cache_recalls", "Recalls by what was sought.", labels=["kind", "found"])
        for kind, hits, misses in (
            ("answer", tally.num_answer_hits, tally.num_answer_misses),
            ("prefix", tally.num_prefix_hits, tally.num_prefix_misses),
        ):
            recalls.add_metric([kind, "true"], hits)
            recalls.add_metric([kind, "false"], misses)
        yield recalls
        offered = CounterMetricFamily("serin_cache_answers_offered", "Answers offered for keeping.", labels=["stored"])
        offered.add_metric(["true"], tally.num_stored)
        offered.add_metric(["false"], tally.num_not_stored)
        yield offered
        yield CounterMetricFamily("serin_cache_purges", "Cache groups purged.", value=tally.num_purges)
        yield GaugeMetricFamily("serin_cache_indexed_blocks", "KV blocks in the index.", value=self._index.num_blocks)
        yield GaugeMetricFamily("serin_cache_workers", "Workers whose blocks are known.", value=self._index.num_workers)
