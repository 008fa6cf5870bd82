"""A scrape says what was found, stored and indexed."""

from prometheus_client import CollectorRegistry, generate_latest
from serin_cache_svc.metrics import CacheCollector
from serin_cache_svc.prefix_index import PrefixIndex, WorkerBlocks
from serin_cache_svc.tally import Tally


def test_a_scrape_shows_the_tally_and_the_index():
    """Hits and misses by kind, answers stored or not, blocks and workers."""
    tally, index = Tally(), PrefixIndex()
    registry = CollectorRegistry()
    registry.register(CacheCollector(tally, index))
    tally.answer(found=True)
    tally.prefix(found=False)
    tally.prefix(found=False)
    tally.stored(stored=False)
    index.replace("w", WorkerBlocks("small", "kv", 16, {b"a", b"b"}))
    said = generate_latest(registry).decode().splitlines()
    assert 'serin_cache_recalls_total{found="true",kind="answer"} 1.0' in said
    assert 'serin_cache_recalls_total{found="false",kind="prefix"} 2.0' in said
    assert 'serin_cache_answers_offered_total{stored="false"} 1.0' in said
    assert "serin_cache_indexed_blocks 2.0" in said
    assert "serin_cache_workers 1.0" in said
