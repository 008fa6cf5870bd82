"""The plan of a model under a rollout: it replaces what the configuration says of its traffic.

Pure: the declared plan, what stands and what runs in, a plan out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from serin_control.instance import LANE_SERVICES, Service
from serin_control.judge.settings import Intent
from serin_control.lanes import WEIGHT_SUM, Versions, share_out
from serin_control.plan import ModelPlan, Share, TrafficPlan, Trial
from serin_control.rollouts.rollout import Hold, Rollout
from serin_control.rollouts.spec import Spec, scope_of
from serin_control.rollouts.standing import Standing, effective

SHADOW_RATES = {Intent.SAME: 0.2, Intent.BETTER: 0.02, Intent.EXPERIMENT: 0.0}
"""Share of finished requests that are scored on both lanes. Of `better` only to show how far answers differ."""

CALIBRATION_RATE = 0.25
SHARED_SERVICES = (Service.GATEWAY,)


@dataclass(frozen=True, slots=True)
class Steering:
    """Running rollouts and standings, by model; applied to each declared plan."""

    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)

    def __call__(self, plan: TrafficPlan) -> TrafficPlan:
        """The plan with the traffic of every model as rollouts want it."""
        of_lanes = {one.model: one for one in self.rollouts.values() if one.spec.moves_lanes}
        models = {
            name: steered(model, self.standings.get(name), of_lanes.get(name)) for name, model in plan.models.items()
        }
        return replace(plan, models=models, service_shares={**plan.service_shares, **self._service_shares(plan)})

    def _service_shares(self, plan: TrafficPlan) -> Mapping[Service, Mapping[str, int]]:
        """How versions of a service that all models share do so, where a rollout says it or has said it."""
        moving = {one.spec.scope: split(one) for one in self.rollouts.values() if not one.ended}
        found: dict[Service, Mapping[str, int]] = {}
        for service in SHARED_SERVICES:
            standing = self.standings.get(scope_of(service))
            still = standing is not None and standing.declared == declared_shares(plan, service)
            shares = moving.get(scope_of(service)) or (standing.shares if standing and still else None)
            if shares:
                kept = [(one.versions, 1) for one in standing.kept] if standing else []
                parts = share_out([share.weight for share in shares])
                pairs = [*kept, *((share.versions, part) for share, part in zip(shares, parts, strict=True))]
                found[service] = {versions[0][1]: weight for versions, weight in pairs}
        return found

    def course(self) -> object:
        """What of it decides traffic, to be compared: counts and sentences do not."""
        return (
            {
                model: (
                    rollout.id,
                    rollout.weight,
                    rollout.hold is Hold.CANARY,
                    rollout.stable_lane,
                    rollout.canary_lane,
                )
                for model, rollout in self.rollouts.items()
            },
            dict(self.standings),
        )


def declared_shares(plan: TrafficPlan, service: Service) -> tuple[Share, ...]:
    """Shares that the configuration gives versions of a service that all models share; empty: it says nothing."""
    named = plan.service_shares.get(service, {})
    return tuple(Share(((service, version),), weight) for version, weight in named.items() if weight)


def steered(plan: ModelPlan, standing: Standing | None, rollout: Rollout | None) -> ModelPlan:
    """The plan of one model."""
    running = rollout if rollout is not None and not rollout.ended else None
    past = standing or Standing(plan.name, ())
    if running is not None:
        shares = split(running)
    elif past.shares is not None and still_declared(past, plan):
        shares = past.shares
    else:
        shares = effective(plan.shares)
    used = {share.versions for share in shares}
    left = [kept for kept in past.successors if kept.versions not in used]
    judged = [versions for versions in _judged(running) if versions not in used]  # taken away while the rollout waits
    return replace(
        plan,
        shares=_with_rest((*shares, *(Share(kept.versions, 0) for kept in left)), plan.shares),
        kept=tuple(kept.versions for kept in left if kept.good),
        draining=(*judged, *(kept.versions for kept in left if not kept.good and kept.versions not in judged)),
        retired=tuple(versions for versions in past.retired if versions not in used and versions not in judged),
        trial=_trial(running),
    )


def still_declared(standing: Standing, plan: ModelPlan) -> bool:
    """Whether the configuration's shares are what they were: until somebody changes them, promotions count."""
    return effective(plan.shares) == standing.declared


def split(rollout: Rollout) -> tuple[Share, ...]:
    """How a running rollout shares traffic out, of 10,000."""
    arms, weight = rollout.arms, rollout.weight
    others: list[Share] = []
    rest = WEIGHT_SUM - weight
    if arms.baseline is not None and weight:
        beside = min(weight, rest)
        others.append(Share(arms.baseline, beside))
        rest -= beside
    if weight:
        others.append(Share(arms.canary, weight))
    if not rest:
        return tuple(others)
    parts = share_out([share.weight for share in arms.stable], rest)
    return (*(Share(share.versions, part) for share, part in zip(arms.stable, parts, strict=True)), *others)


def _judged(rollout: Rollout | None) -> tuple[Versions, ...]:
    """The sets of versions that have traffic only because of a rollout."""
    if rollout is None:
        return ()
    arms = rollout.arms
    return (arms.canary,) if arms.baseline is None else (arms.canary, arms.baseline)


def _with_rest(shares: Iterable[Share], declared: Iterable[Share]) -> tuple[Share, ...]:
    """What is declared beside the shares stays known, without traffic of its own."""
    shares = tuple(shares)
    named: set[Versions] = {share.versions for share in shares}
    return (*shares, *(Share(share.versions, 0) for share in declared if share.versions not in named))


def _trial(rollout: Rollout | None) -> Trial | None:
    if rollout is None or rollout.hold is Hold.CANARY:
        return None
    if not rollout.weight or not rollout.stable_lane or not rollout.canary_lane:
        return None
    rate = shadow_rate(rollout.spec)
    return Trial(rollout.id, rollout.stable_lane, rollout.canary_lane, rate, CALIBRATION_RATE)


def shadow_rate(spec: Spec) -> float:
    """Share of finished requests that are scored on both lanes; none where both have the same workers."""
    return SHADOW_RATES[spec.intent] if spec.service in LANE_SERVICES else 0.0
