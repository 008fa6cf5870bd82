"""Whether a rollout may begin, and what it would need: everything that is checked before anything is written.

Reads what runs and what was observed; changes nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serin_control.errors import RolloutInvalid
from serin_control.instance import LANE_SERVICES, Instance, Service
from serin_control.judge.need import Forecast
from serin_control.judge.settings import Intent
from serin_control.lanes import WEIGHT_SUM, mismatch, with_shared
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.act import Actor
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.formats import foreign_formats
from serin_control.rollouts.golden_set import GoldenInvalid, parse_golden
from serin_control.rollouts.rollout import Arms, Rollout, Strength
from serin_control.rollouts.sight import Sight, arms_for, look, service_shares, strength
from serin_control.rollouts.spec import Spec, Step, check_spec
from serin_control.rollouts.standing import effective
from serin_control.rollouts.steering import steered
from serin_control.rollouts.words import counted

STARTED = "started"
"""The first reason of every rollout; what a person should know follows it."""

NO_GOLDEN = (
    "without a golden set answers are judged by callers' feedback and by the schemas they ask for; if neither comes, "
    "it stays at its first step until a person promotes"
)

NO_ANSWERS = (
    "a gateway makes no answers of its own: callers' feedback and the schemas they ask for are judged if they come, "
    "and it is promoted without"
)

MOST_SESSIONS_PER_S = 1_000.0
"""New sessions of one model that a step is credited with while nobody knows its traffic."""

UNOBSERVED = "no traffic was observed yet, `serin rollout plan … --rate N/s` says what yours shows"

UNTRIED = (
    "no traffic was observed yet, so nobody knows whether it can show the tolerances: "
    "`serin rollout plan … --rate N/s` says so of a rate"
)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a rollout would need.

    Attributes:
        steps: what each step would, but for the last, which needs nothing.
        sessions_per_s: the rate that was reckoned with.
        note: what a person should know; empty: nothing.
    """

    steps: tuple[tuple[Step, Forecast], ...]
    sessions_per_s: float
    note: str = ""


class Starting:
    """Makes rollouts that may begin.

    Args:
        engine: what will carry them out.
        has_edge: whether Envoy splits the gateways' traffic.
    """

    def __init__(self, engine: Engine, has_edge: Callable[[], bool]) -> None:
        self._engine = engine
        self._has_edge = has_edge

    async def begin(self, spec: Spec, golden: str, actor: Actor, plan: ModelPlan) -> Rollout:
        """A rollout that may be started.

        Raises:
            RolloutInvalid: it cannot be meant.
        """
        engine = self._engine
        check_spec(spec, engine.court.metrics)
        engine.court.check(spec)
        if spec.service is Service.GATEWAY and not self._has_edge():
            raise RolloutInvalid("service: a gateway rollout is split by Envoy: accepted: with `serin up --edge` only")
        num_golden = _num_questions(golden)
        instances = engine.mesh.instances()
        shares = self._shares(spec, plan, instances)
        shared = engine.shared
        arms = arms_for(spec, shares, instances, shared)
        self._check_sight(spec, arms, look(spec, arms, instances))
        untried = self._check_weak(spec, num_golden)
        before = dict(with_shared(arms.stable[0].versions, shared))
        return Rollout(
            id=f"{spec.model}-{await engine.store.next_number()}",
            spec=spec,
            arms=arms,
            from_version=before[spec.service],
            started_at=engine.wall_clock(),
            started_by=actor.shown,
            capacity=self._capacity(spec, arms.stable, instances),
            changed_at=engine.wall_clock(),
            reason="; ".join(
                filter(
                    None, (STARTED, foreign_formats(spec, before[spec.service], instances), _unjudged(spec), untried)
                )
            ),
        )

    def forecast(self, spec: Spec, sessions_per_s: float, golden: str, plan: ModelPlan) -> Prospect:
        """What a rollout would need at a rate of new sessions; 0: as observed. Its version need not run yet.

        Raises:
            RolloutInvalid: it cannot be meant, or no rate is given and nothing was observed.
        """
        check_spec(spec, self._engine.court.metrics)
        self._engine.court.check(spec)
        num_golden = _num_questions(golden)
        rate = self._engine.bench.meter.rate(spec.model)
        reckoned = sessions_per_s or rate.sessions_per_s
        if not reckoned:
            raise RolloutInvalid("rate: no traffic was observed yet: accepted: new sessions a second, --rate 2/s")
        found: list[tuple[Step, Forecast]] = []
        for step in spec.steps:
            told = self._forecast(spec, step, reckoned, num_golden) if step.weight < WEIGHT_SUM else None
            if told is not None:
                found.append((step, told))
        notes = (self._unready(spec, plan), self._refused_at(spec, reckoned, num_golden), _unjudged(spec))
        return Prospect(tuple(found), reckoned, "; ".join(filter(None, notes)))

    def _unready(self, spec: Spec, plan: ModelPlan) -> str:
        """Why it could not start now; empty: it could."""
        instances = self._engine.mesh.instances()
        try:
            arms_for(spec, self._shares(spec, plan, instances), instances, self._engine.shared)
        except RolloutInvalid as error:
            return f"it could not start now: {error}"
        return ""

    def _check_sight(self, spec: Spec, arms: Arms, seen: Sight) -> None:
        if seen.is_mismatched:
            hint = f"; move both: --also {_other(spec.service)}" if not spec.also else ""
            why = mismatch(arms.canary)
            raise RolloutInvalid(f"to_version: {spec.to_version!r}: {why}: they can form no lane{hint}")
        if spec.intent is Intent.SAME and seen.same_vocabulary is False:
            raise RolloutInvalid(
                f"intent: same: {spec.to_version} holds another vocabulary: its answers cannot be compared token by "
                "token; accepted: better"
            )

    def _check_weak(self, spec: Spec, num_golden: int) -> str:
        """Refuse a tolerance that the traffic cannot show; what a person should know of the others; empty: nothing.

        While no traffic was observed, only what no traffic shows is refused.
        """
        observed = self._engine.bench.meter.rate(spec.model).sessions_per_s
        if observed:
            self._check_shown(spec, num_golden, observed, f"{observed:.2g} new sessions/s")
            return ""
        most = MOST_SESSIONS_PER_S
        told = self._check_shown(spec, num_golden, most, f"even {most:,.0f} new sessions/s", f"; {UNOBSERVED}")
        return UNTRIED if told else ""

    def _refused_at(self, spec: Spec, sessions_per_s: float, num_golden: int) -> str:
        """Why `start` would refuse it where sessions come at this rate; empty: it would not."""
        try:
            self._check_shown(spec, num_golden, sessions_per_s, f"{sessions_per_s:.2g} new sessions/s")
        except RolloutInvalid as error:
            return f"at this rate `serin rollout start` refuses it: {error}"
        return ""

    def _check_shown(self, spec: Spec, num_golden: int, sessions_per_s: float, who: str, hint: str = "") -> bool:
        """Refuse a tolerance that a rate cannot show in the best step; whether there was any to look at.

        Raises:
            RolloutInvalid: naming the metric and the least that ``who`` can show.
        """
        judged = [step for step in spec.steps if step.weight < WEIGHT_SUM]
        if spec.accept_weak or not spec.tolerances or not judged:
            return False
        # Most is seen of the new version in one of them, most texts of the old one are scored in another.
        best = {max(judged, key=lambda step: step.weight * step.max_s), max(judged, key=_of_old)}
        told = [self._forecast(spec, step, sessions_per_s, num_golden) for step in best]
        for metric, tolerance in spec.tolerances.items():
            least = min((one.detectable.get(metric, 0.0) for one in told if one is not None), default=0.0)
            if metric == "golden" and tolerance < least:
                raise RolloutInvalid(_refusal(metric, tolerance, least, _golden_set(num_golden)))
            if tolerance < least:
                raise RolloutInvalid(_refusal(metric, tolerance, least, f"{who} can show in a step") + hint)
        return any(told)

    def _forecast(self, spec: Spec, step: Step, sessions_per_s: float, num_golden: int) -> Forecast | None:
        each = self._engine.bench.meter.rate(spec.model).requests_per_session
        return self._engine.court.forecast(spec, step, sessions_per_s, each, num_golden)

    def _capacity(self, spec: Spec, stable: Sequence[Share], instances: Sequence[Instance]) -> dict[Service, Strength]:
        """What the old versions bear together, by service that moves."""
        found: dict[Service, Strength] = {}
        for service in spec.moved:
            sets = [dict(with_shared(share.versions, self._engine.shared)) for share in stable]
            versions = {one[service] for one in sets if service in one}
            each = [strength(spec.model, service, version, instances) for version in versions]
            found[service] = Strength(sum(one.num_instances for one in each), sum(one.units for one in each))
        return found

    def _shares(self, spec: Spec, plan: ModelPlan, instances: Sequence[Instance]) -> tuple[Share, ...]:
        """Who shares the traffic that would move, now."""
        standing = self._engine.book.standings.get(spec.scope)
        if spec.moves_lanes:
            return effective(steered(plan, standing, None).shares)
        declared = self._engine.declared(spec.scope)
        left = standing.shares if standing is not None and standing.declared == declared else None
        return service_shares(spec.service, left or declared, instances)


def _num_questions(golden: str) -> int:
    """Questions of a golden set, checked; 0: there is none."""
    if not golden:
        return 0
    try:
        return len(parse_golden(golden))
    except GoldenInvalid as error:
        raise RolloutInvalid(str(error.problems[0])) from error


def _of_old(step: Step) -> float:
    """How much of the old version is seen in a step."""
    return (WEIGHT_SUM - step.weight) * step.max_s


def _refusal(metric: str, tolerance: float, least: float, shown: str) -> str:
    """Why a tolerance is refused; ``shown`` says who can show the least that is accepted."""
    if math.isinf(least):
        accepted = f"with --accept-weak only: no change is one that {shown}"
    else:
        accepted = f"at least {_at_least(least)}, the smallest change that {shown}, or --accept-weak"
    return f"tolerances.{metric}: {tolerance:g}: accepted: {accepted}"


def _golden_set(num_golden: int) -> str:
    """What shows a change of the golden set's score."""
    if not num_golden:
        return "is seen without a golden set (--golden FILE)"
    return f"{counted(num_golden, 'golden question')} can show"


def _at_least(least: float) -> str:
    """A bound as people may type it: rounded to two digits, never down, so that what is said to be accepted is."""
    digits = 1 - math.floor(math.log10(least))
    return f"{math.ceil(least * 10.0**digits) / 10.0**digits:g}"


def _unjudged(spec: Spec) -> str:
    """What is missing for its answers to be judged; empty: nothing."""
    if spec.intent is not Intent.BETTER or spec.has_golden:
        return ""
    if spec.service is Service.GATEWAY:
        return NO_ANSWERS
    return NO_GOLDEN if spec.service in LANE_SERVICES else ""


def _other(service: Service) -> Service:
    return Service.TOKENIZER if service is Service.WORKER else Service.WORKER
