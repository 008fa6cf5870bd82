"""One rollout: what was asked, where it stands, why.

A value; what happens to it is in :mod:`serin_control.rollouts.machine`. Times are seconds since 1970.
"""

import enum
from dataclasses import dataclass, field

from serin_control.instance import Service
from serin_control.judge.verdict import MetricVerdict
from serin_control.lanes import WEIGHT_SUM, Versions
from serin_control.plan import Share
from serin_control.rollouts.spec import Spec, Step, percent


class State(enum.StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ABORTED = "aborted"


class Hold(enum.StrEnum):
    """What a rollout that does not move is waiting for; NOTHING: it moves or has ended."""

    NOTHING = ""
    PERSON = "person"
    PROMOTER = "promoter"
    START = "start"
    CAPACITY = "capacity"
    SAMPLES = "samples"
    CANARY = "canary"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Arms:
    """Who is compared with whom.

    Attributes:
        stable: shares of the model's traffic as they were before, heaviest first.
        canary: the versions that are judged.
        baseline: the old versions in processes of their own, beside the canary; None: the heaviest of ``stable``.
    """

    stable: tuple[Share, ...]
    canary: Versions
    baseline: Versions | None = None

    @property
    def compared(self) -> Versions:
        """What the canary is compared with."""
        return self.baseline or self.stable[0].versions


@dataclass(frozen=True, slots=True)
class Strength:
    """What one version of a service can bear: instances that take calls, and the units they bear together."""

    num_instances: int = 0
    units: int = 0

    @property
    def each(self) -> float:
        """Units of one instance, at least 1."""
        return max(1.0, self.units / self.num_instances) if self.num_instances else 1.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout.

    Attributes:
        from_version: version of the service before.
        arms: who is compared with whom.
        capacity: what the old version could bear when it started, by service.
        step: index of the step it is in.
        weight: share of new sessions that the canary has, of 10,000.
        reason, next: why it is where it is and what comes then, in plain words.
        spent_s: seconds spent in this step while it could move.
        requests_before: canary requests that do not count in this step: they ended before it, or before ``anew``.
        num_requests, num_sessions: that met the canary, answers that run included.
        num_running: of the requests, those of which no end is known.
        canary_files: digests of the canary's files when its lane was first seen, by service.
        was_able: the canary has taken calls once.
        was_given: the canary has had a weight once: it has a lane of its own, also at weight 0.
        canary_away: the canary takes no calls now; one without weight not when it is silent either.
        stable_away: nothing of what was there before takes calls now.
        is_laid_down: the whole mesh was stopped in order since: that the canary is away says nothing about it.
        quality_judged: something is known of the answers.
        anew: why verdicts count from a later moment than the start only, for people; empty: they count from the start.
    """

    id: str
    spec: Spec
    arms: Arms
    from_version: str
    started_at: float
    started_by: str
    capacity: dict[Service, Strength] = field(default_factory=dict)
    state: State = State.RUNNING
    hold: Hold = Hold.NOTHING
    step: int = 0
    weight: int = 0
    reason: str = ""
    next: str = ""
    changed_at: float = 0.0
    spent_s: float = 0.0
    requests_before: int = 0
    num_requests: int = 0
    num_sessions: int = 0
    num_running: int = 0
    verdicts: tuple[MetricVerdict, ...] = ()
    stable_lane: str = ""
    canary_lane: str = ""
    was_able: bool = False
    quality_judged: bool = False
    is_laid_down: bool = False
    anew: str = ""
    canary_files: dict[Service, str] = field(default_factory=dict)
    was_given: bool = False
    canary_away: bool = False
    stable_away: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in (State.PROMOTED, State.ABORTED)

    @property
    def model(self) -> str:
        """The model."""
        return self.spec.model

    @property
    def current(self) -> Step:
        """The step it is in."""
        return self.spec.steps[min(self.step, len(self.spec.steps) - 1)]

    @property
    def is_last_step(self) -> bool:
        """Whether nothing but everything comes after this step."""
        later = self.spec.steps[self.step + 1 :]
        return not later or later[0].weight >= WEIGHT_SUM

    @property
    def percent(self) -> str:
        """Its weight for people."""
        return percent(self.weight)

    @property
    def num_ended(self) -> int:
        """Canary requests that ended: what can be judged."""
        return self.num_requests - self.num_running

    @property
    def num_step_requests(self) -> int:
        """Canary requests that count in this step, whatever interrupted it."""
        return self.num_ended - self.requests_before
