"""What a judge is told before it judges: which lanes, what must hold of the answers, what is tolerated."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from serin_control.errors import ControlError
from serin_control.judge.metrics import CACHE_ONLY, METRICS

Subject = Literal["lane", "cache"]
MAX_ERROR_RATE = 0.2
MAX_BURDEN = 0.9
WARM_UP_S = 120.0


class Intent(enum.StrEnum):
    """What must hold of the new version's answers."""

    SAME = "same"
    BETTER = "better"
    EXPERIMENT = "experiment"


_SHOWN_ONLY: Mapping[Intent, frozenset[str]] = {
    Intent.SAME: CACHE_ONLY | {"golden"},
    Intent.BETTER: CACHE_ONLY | {"answers", "agreement"},
    Intent.EXPERIMENT: frozenset(METRICS) - {"errors"},
}
# Both arms have the same workers: what these answer and how fast they go on says nothing about a cache.
_OF_CACHES = frozenset({"errors", "first_token"}) | CACHE_ONLY
_QUALITY: Mapping[Intent, tuple[str, ...]] = {
    Intent.SAME: ("answers",),
    Intent.BETTER: ("golden", "feedback", "schema_valid"),
    Intent.EXPERIMENT: (),
}

_MEANT = {
    "share": ", a share: 0.01 is 1 point",
    "ratio": ", a ratio: 0.1 is 10 %",
    "bytes": " bytes",
    "nats": " nats",
}
"""What a number in a metric's unit stands for."""


class JudgeSettingsInvalid(ControlError):
    """Settings that a judge cannot keep; the message says which and why."""


class UnknownMetric(JudgeSettingsInvalid):
    """A tolerance for a metric that nobody measures."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown metric {name!r}; known are: {', '.join(METRICS)}")
        self.name = name


@dataclass(frozen=True)
class JudgeSettings:
    """Settings of one rollout's judge.

    Attributes:
        stable_lane, canary_lane: what is compared; with a baseline arm, that arm's lane is the stable one.
        tolerances: largest accepted change for the worse by metric, in the metric's unit; absent: its default.
        error_rate: share of versions no worse than the old that may be taken back wrongly, above 0 and at most 0.2;
            also the share of versions that are worse than tolerated and may be promoted.
        started_at: when the rollout began, seconds since 1970.
        warm_up_s: what is left out after the start, and of latencies after a worker is first seen.
        session_s: how long a session is watched, from its first request on a lane.
        block_s: sessions are compared with those that began within about this time of them.
        subject: what differs between the lanes: a member that makes answers, or only the cache that is asked before.

    Raises:
        UnknownMetric: a tolerance for a metric that nobody measures.
        JudgeSettingsInvalid: a value outside its range.
    """

    stable_lane: str
    canary_lane: str
    intent: Intent
    tolerances: Mapping[str, float] = field(default_factory=dict)
    error_rate: float = 0.01
    warm_up_s: float = WARM_UP_S
    started_at: float = 0.0
    session_s: float = 30.0
    block_s: float = 30.0
    subject: Subject = "lane"

    def __post_init__(self) -> None:
        for name, tolerance in self.tolerances.items():
            if name not in METRICS:
                raise UnknownMetric(name)
            if name in CACHE_ONLY and self.subject != "cache":
                raise JudgeSettingsInvalid(f"tolerances.{name}: accepted where a cache is rolled out only")
            metric = METRICS[name]
            most = math.inf if metric.by_signs else metric.change_of(MAX_BURDEN)
            if not 0 < tolerance < most:
                below = "" if math.isinf(most) else f" and below {most:.4g}"
                raise JudgeSettingsInvalid(
                    f"tolerances.{name}: {tolerance:g}: accepted: above 0{below}{_MEANT[metric.unit]}"
                )
        if self.intent not in tuple(Intent):
            raise JudgeSettingsInvalid(f"intent {self.intent!r} is none of {', '.join(Intent)}")
        if not 0 < self.error_rate <= MAX_ERROR_RATE:
            raise JudgeSettingsInvalid(f"error rate {self.error_rate} is not above 0 and at most {MAX_ERROR_RATE}")
        if self.stable_lane == self.canary_lane:
            raise JudgeSettingsInvalid("a lane cannot be compared with itself")
        if min(self.warm_up_s, self.session_s, self.block_s) < 0:
            raise JudgeSettingsInvalid("warm_up_s, session_s and block_s are durations: none may be negative")
        object.__setattr__(self, "tolerances", MappingProxyType(dict(self.tolerances)))

    def tolerance(self, name: str) -> float:
        """The tolerance in force, in the metric's unit."""
        metric = METRICS[name]
        default = metric.tolerance if self.intent == "same" else metric.better_tolerance or metric.tolerance
        return self.tolerances.get(name, default)

    def is_judged(self, name: str) -> bool:
        """Whether the metric can abort, and is needed to promote; otherwise it is only shown."""
        if self.subject == "cache" and self.intent != "experiment":
            return name in _OF_CACHES
        return name not in _SHOWN_ONLY[self.intent]

    def is_two_sided(self, name: str) -> bool:
        """Whether a change in either direction counts as worse."""
        return METRICS[name].both and self.intent == "same" and self.is_judged(name)

    @property
    def quality_metrics(self) -> tuple[str, ...]:
        """Metrics of which one must be known before anything promotes by itself."""
        if self.subject == "cache" and self.intent != "experiment":
            return ("cache_hit_rate",)
        return _QUALITY[self.intent]

    def abort_error_rate(self, name: str) -> float:
        """The metric's part of the error rate (Bonferroni): half for errors, slowest to be known; the rest evenly."""
        judged = sum(self.is_judged(metric) for metric in METRICS)
        if judged == 1:
            return self.error_rate
        part = self.error_rate / 2 if name == "errors" else self.error_rate / 2 / (judged - 1)
        return part / 2 if self.is_two_sided(name) else part
