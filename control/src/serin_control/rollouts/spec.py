"""What somebody asks of a rollout: from where to where, in which steps, judged how.

Values and the rules that need nothing but them. Knows nothing about what runs.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serin_control.errors import RolloutInvalid
from serin_control.instance import LANE_SERVICES, MEMBER_SERVICES, Service
from serin_control.judge.settings import MAX_ERROR_RATE, Intent
from serin_control.lanes import WEIGHT_SUM

DEFAULT_WEIGHTS = (100, 500, 2_500, 5_000, WEIGHT_SUM)
DEFAULT_MIN_SAMPLES = 50
DAY_S = 86_400.0
DEFAULT_MAX_S = DAY_S
LONGEST_STEP_S = 30 * DAY_S
MAX_STEPS = 20
ROLLABLE = (*MEMBER_SERVICES, Service.GATEWAY)


class OnScarce(enum.StrEnum):
    """What to do when a step's data is scarce."""

    WAIT = "wait"
    ASK = "ask"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        weight: share of new sessions, of 10,000.
        min_samples: fewest canary requests before it may end.
        max_s: most seconds it may take before the rollout pauses.
    """

    weight: int
    min_samples: int = DEFAULT_MIN_SAMPLES
    max_s: float = DEFAULT_MAX_S

    @property
    def percent(self) -> str:
        """Its weight for people: ``1 %``."""
        return percent(self.weight)


DEFAULT_STEPS = tuple(Step(weight) for weight in DEFAULT_WEIGHTS)
DEFAULT_SPLIT = (Step(5_000, 0, LONGEST_STEP_S),)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked of a rollout.

    Attributes:
        also: further services that move together with ``service``, each to ``to_version``.
        manual: a person promotes, not the judge.
        tolerances: largest accepted difference for the worse, by metric; absent ones have their defaults.
        error_rate: share of false verdicts over the whole rollout.
        baseline: compare with an arm of the old version as large as the new one's.
        has_golden: a golden set came with it.
        accept_weak: start although a tolerance is smaller than what the traffic can show.
    """

    model: str
    service: Service
    to_version: str
    intent: Intent
    steps: tuple[Step, ...] = DEFAULT_STEPS
    manual: bool = False
    also: tuple[Service, ...] = ()
    tolerances: Mapping[str, float] = field(default_factory=dict)
    error_rate: float = 0.01
    baseline: bool = False
    on_scarce: OnScarce = OnScarce.WAIT
    has_golden: bool = False
    accept_weak: bool = False

    @property
    def moved(self) -> tuple[Service, ...]:
        """All services that move."""
        return (self.service, *self.also)

    @property
    def scope(self) -> str:
        """What its traffic belongs to: a model, or ``@gateway`` of a service that all models share."""
        return self.model if self.moves_lanes else scope_of(self.service)

    @property
    def moves_lanes(self) -> bool:
        """Whether it moves sessions from lane to lane; else it splits the calls of a service that all lanes share."""
        return self.service in MEMBER_SERVICES

    @property
    def is_experiment(self) -> bool:
        """Whether it is a fixed split that promotes nothing."""
        return self.intent is Intent.EXPERIMENT


def scope_of(service: Service) -> str:
    """The name that a service has among models, which cannot have it: all of them share it."""
    return f"@{service}"


def shown_scope(scope: str) -> str:
    """A scope for people: a model, or ``all models`` where it is a service that all of them share."""
    return "all models" if scope.startswith("@") else scope


def check_spec(spec: Spec, metrics: Collection[str]) -> None:
    """Refuse what cannot be meant; ``metrics`` are the names that the judge knows.

    Raises:
        RolloutInvalid: naming the key, its value and what is accepted.
    """
    if spec.service not in ROLLABLE:
        raise RolloutInvalid(f"service: {spec.service}: accepted: one of {', '.join(ROLLABLE)}")
    for service in spec.also:
        if service not in LANE_SERVICES or spec.service not in LANE_SERVICES or service is spec.service:
            raise RolloutInvalid(f"also: {service}: accepted: tokenizer together with worker, or the reverse")
    _check_steps(spec)
    unknown = sorted(set(spec.tolerances) - set(metrics))
    if unknown:
        raise RolloutInvalid(f"tolerances.{unknown[0]}: no such metric: accepted: {', '.join(sorted(metrics))}")
    for metric, tolerance in spec.tolerances.items():
        if not 0 < tolerance < float("inf"):
            raise RolloutInvalid(f"tolerances.{metric}: {tolerance:g}: accepted: a number above 0")
    if not 0 < spec.error_rate <= MAX_ERROR_RATE:
        raise RolloutInvalid(f"error_rate: {spec.error_rate:g}: accepted: above 0, at most {MAX_ERROR_RATE:g}")
    if spec.has_golden and spec.intent is Intent.SAME:
        raise RolloutInvalid("golden: accepted: with intent better only; `same` compares the answers themselves")
    if spec.has_golden and spec.service is Service.CACHE:
        raise RolloutInvalid("golden: not accepted for a cache: its questions are asked in no cache")
    if spec.has_golden and spec.service is Service.GATEWAY:
        raise RolloutInvalid("golden: not accepted for a gateway: its questions are asked past the gateways")
    if spec.baseline and spec.service not in LANE_SERVICES:
        raise RolloutInvalid(f"baseline: accepted: with worker and tokenizer only, not with {spec.service}")


def whole_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps with a last one at 100 %, which a plan may leave out."""
    if steps and steps[-1].weight < WEIGHT_SUM:
        return (*steps, Step(WEIGHT_SUM, steps[-1].min_samples, steps[-1].max_s))
    return tuple(steps)


def weight_of(value: float) -> int:
    """The weight of a share in percent, of 10,000.

    Raises:
        RolloutInvalid: it is no share.
    """
    if not 100 / WEIGHT_SUM <= value <= 100:
        raise RolloutInvalid(f"steps: {value:g} %: accepted: {100 / WEIGHT_SUM:g} % to 100 %")
    return round(value * WEIGHT_SUM / 100)


def percent(weight: int) -> str:
    """A weight for people: ``1 %``."""
    return f"{weight * 100 / WEIGHT_SUM:g} %"


def _check_steps(spec: Spec) -> None:
    if not spec.steps:
        raise RolloutInvalid("steps: none: accepted: at least one")
    if len(spec.steps) > MAX_STEPS:
        raise RolloutInvalid(f"steps: {len(spec.steps)} of them: accepted: at most {MAX_STEPS}")
    before = 0
    for number, step in enumerate(spec.steps, start=1):
        if not 0 < step.weight <= WEIGHT_SUM:
            raise RolloutInvalid(f"steps: step {number}: {step.percent}: accepted: 0.01 % to 100 %")
        if step.weight <= before:
            raise RolloutInvalid(
                f"steps: step {number}: {step.percent} after {percent(before)}: accepted: each above the one before"
            )
        if not 0 < step.max_s <= LONGEST_STEP_S:
            days, most = f"{step.max_s / DAY_S:.10g} days", f"{LONGEST_STEP_S / DAY_S:g} days"
            raise RolloutInvalid(f"steps: step {number}: {days}: accepted: above 0 s, at most {most}")
        before = step.weight
    if spec.steps[0].weight >= WEIGHT_SUM and not spec.is_experiment:
        raise RolloutInvalid("steps: 100 %: nothing would be judged: accepted: at least one step below it")
    if spec.is_experiment and (len(spec.steps) != 1 or before >= WEIGHT_SUM):
        raise RolloutInvalid("steps: accepted: for an experiment one share below 100 %")
