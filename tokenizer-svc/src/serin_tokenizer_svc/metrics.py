"""What a scrape says about the tokenizer. Figures are read when scraped; times are observed once a call.

No label comes from a caller.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serin_tokenizer_svc.tally import Tally
from serin_tokenizer_svc.tokenizer import Tokenizer

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class CallTimes:
    """Seconds that the steps of a call took, waiting for their turn included."""

    def __init__(self, into: CollectorRegistry) -> None:
        self.render = Histogram(
            "serin_tokenizer_render_seconds", "Time in the chat template's process.", buckets=_SECONDS, registry=into
        )
        self.encode = Histogram(
            "serin_tokenizer_encode_seconds", "Time to encode one call's texts.", buckets=_SECONDS, registry=into
        )
        self.grammar = Histogram(
            "serin_tokenizer_grammar_seconds", "Time to check a grammar.", buckets=_SECONDS, registry=into
        )


class TokenizerCollector(Collector):
    """Counters and gauges of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, tally: Tally) -> None:
        self._tokenizer = tokenizer
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """All of them, now."""
        tally, chat, queue = self._tally, self._tokenizer.chat, self._tokenizer.queue
        grammars = self._tokenizer.grammars
        counters = {
            "serin_tokenizer_encoded_tokens": ("Tokens that texts were encoded to.", tally.num_encoded),
            "serin_tokenizer_detokenized_tokens": ("Tokens decoded in streams.", tally.num_detokenized),
            "serin_tokenizer_sequence_failures": ("Sequences of streams that failed.", tally.num_failures),
            "serin_tokenizer_renderer_kills": ("Render processes killed or died.", chat.num_kills),
            "serin_tokenizer_grammar_kills": (
                "Processes that checked grammars killed or died.",
                grammars.children.num_kills,
            ),
            "serin_tokenizer_grammar_hits": ("Grammars that had been checked before.", grammars.cache.num_hits),
            "serin_tokenizer_encode_batches": ("Batches encoded.", queue.num_batches),
        }
        gauges = {
            "serin_tokenizer_open_streams": ("Detokenizing streams.", tally.num_streams),
            "serin_tokenizer_waiting_characters": (
                "Characters that wait or are being encoded.",
                queue.num_chars,
            ),
            "serin_tokenizer_grammar_cache_bytes": (
                "Memory for what was found about grammars.",
                grammars.cache.num_bytes,
            ),
            "serin_tokenizer_waiting_renders": ("Conversations that wait to be rendered.", chat.num_waiting),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value=value)
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
