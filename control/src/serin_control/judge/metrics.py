"""What can be judged: each metric's name, unit, default tolerance, and which direction is worse.

Inside the judge every metric is a *burden*: a number from 0 to 1 of which less is better, so that one test fits all.
This table says how a burden's differences read in a metric's own unit. Knows nothing about tests or lanes.

Three metrics are of caches only. `cache_hit_rate` is the share of a prompt's tokens that nobody had to compute: what
its worker reused, all of them where a stored answer was found. It is what callers gain, so an index that promises
blocks that are not there does not raise it. Prompts that come again are reused nearly whole by workers alone, so it
would hardly notice that stored answers are lost: `stored_answers` are the requests that one answered, of all that
asked. `recall_errors` are recalls that the cache or its store did not answer in time: they fail no request, so `errors`
cannot see them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        title: how a sentence calls it.
        tolerance: largest change for the worse that is accepted by default, in ``unit``.
        better_tolerance: the same where answers may change; 0: as ``tolerance``.
        span: change of the metric that makes the burden's whole range, in ``unit``; ratios: of the logarithm.
        worse: 1 if more is worse, -1 if less is.
        both: whether, where answers must not change, a change in either direction is worse.
        rare: whether only some requests can show it, so that its absence keeps nobody waiting.
        by_signs: whether it is no burden but tested by how often it is above the tolerance, which may be any then.
    """

    name: str
    title: str
    unit: str
    tolerance: float
    better_tolerance: float = 0.0
    span: float = 1.0
    worse: int = 1
    both: bool = False
    rare: bool = False
    by_signs: bool = False

    def to_burden(self, difference: float) -> float:
        """A change for the worse, in the metric's unit, as a difference of burdens."""
        if self.unit == "ratio":
            return math.log1p(difference) / self.span
        return difference / self.span

    def change_of(self, difference: float) -> float:
        """The change for the worse that a difference of burdens is, in the metric's unit: undoes :meth:`to_burden`."""
        return math.expm1(difference * self.span) if self.unit == "ratio" else difference * self.span

    def from_burden(self, difference: float) -> float:
        """A difference of burdens as new minus old, in the metric's unit."""
        if self.unit == "ratio":
            return math.expm1(self.worse * difference * self.span)
        return self.worse * difference * self.span


# Shadow scores differ by thousandths of a nat where numerics differ and by tenths where weights are damaged.
_ALL = (
    Metric("errors", "errors", "share", 0.005),
    Metric("first_token", "time to first token", "ratio", 0.25, span=2 * math.log(8)),
    Metric("per_token", "time per token", "ratio", 0.10, span=2 * math.log(3)),
    Metric("answer_length", "length of answers", "ratio", 0.25, better_tolerance=1.0, span=2 * math.log(8), both=True),
    Metric("finish_reasons", "answers cut off", "share", 0.05, both=True),
    Metric("memory", "memory growth", "bytes", 4 * 2.0**20, by_signs=True),
    Metric("answers", "change of answers", "nats", 0.002, span=0.1),
    Metric("agreement", "agreement of answers", "share", 0.02, worse=-1),
    Metric("golden", "golden set", "share", 0.05, span=2.0, worse=-1),
    Metric("schema_valid", "answers that obey their schema", "share", 0.03, worse=-1, rare=True),
    Metric("refusals", "refusals", "share", 0.03, rare=True),
    Metric("feedback", "feedback", "share", 0.05, worse=-1, rare=True),
    Metric("cache_hit_rate", "tokens of prompts reused", "share", 0.05, worse=-1),
    Metric("stored_answers", "requests answered from the store", "share", 0.05, worse=-1),
    Metric("recall_errors", "recalls that failed", "share", 0.005),
)

CACHE_ONLY = frozenset({"cache_hit_rate", "stored_answers", "recall_errors"})
"""Metrics that are looked at where caches are compared."""

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
