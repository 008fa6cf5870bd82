"""What the judge says, of each metric and of all of them together. Values only."""

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What is known of the new lane."""

    WAIT = "wait"
    PROMOTE = "promote"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """One metric.

    Attributes:
        difference: new minus old, in ``unit``; with ``low`` and ``high``, its interval, valid at any look.
        num_samples: samples of the new lane.
        stable_value, canary_value: what each lane showed, in ``unit``.
        tolerance: largest difference for the worse that is accepted; positive, whichever direction is worse.
        note: what decided or what is missing, in plain words.
        unit: "share", "s", "ratio", "nats", "tokens" or "bytes".
    """

    metric: str
    verdict: Verdict
    difference: float
    low: float
    high: float
    num_samples: int
    stable_value: float
    canary_value: float
    tolerance: float
    note: str = ""
    unit: str = "share"


@dataclass(frozen=True, slots=True)
class Decision:
    """All metrics together.

    Attributes:
        verdict: abort as soon as one metric aborts; promote when every metric that must be judged promotes.
        reason: the metric that decided or is missing most, in plain words with figures.
        num_exposed_requests, num_exposed_sessions: what met the canary, answers that run included.
        quality_judged: False: nothing was known of the answers, so nothing may promote by itself.
        num_running: of the exposed requests, those of which no end is known.
    """

    verdict: Verdict
    reason: str
    metrics: tuple[MetricVerdict, ...]
    num_exposed_requests: int
    num_exposed_sessions: int
    quality_judged: bool
    num_running: int = 0
