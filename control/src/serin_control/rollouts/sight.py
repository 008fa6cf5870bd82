"""What of a rollout's two arms is there right now: lanes, capacity, starts.

Pure: instances in, a sight out. Knows nothing about steps or verdicts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from serin_control.errors import RolloutInvalid
from serin_control.instance import LANE_SERVICES, Instance, Service, State
from serin_control.lanes import WEIGHT_SUM, Lane, Versions, form_lanes
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.rollout import Arms, Strength
from serin_control.rollouts.spec import Spec

BASELINE_SUFFIX = "-baseline"
"""A version of this name beside the old one is the same files in processes of their own."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Both arms at one moment.

    Attributes:
        stable_lane, canary_lane: ids; empty: it is not formed.
        able: a new request on the canary would be answered.
        activity: what the canary does while it starts ("loading weights 40 %"); empty: nothing of it starts.
        starts: (instance, when it registered) of every process of the canary, whatever its state.
        canary: what it can bear, by service that moves.
        wrong: why its versions can never form a lane; empty: nothing is known to be wrong.
        same_vocabulary: both arms hold one vocabulary; None: not known yet.
    """

    stable_lane: str = ""
    canary_lane: str = ""
    able: bool = False
    activity: str = ""
    starts: frozenset[tuple[str, float]] = frozenset()
    canary: Mapping[Service, Strength] = field(default_factory=dict)
    wrong: str = ""
    same_vocabulary: bool | None = None

    def shortage(self, weight: int, stable: Mapping[Service, Strength]) -> str:
        """What is missing to bear a weight, for people ("capacity 1 of 5 workers"); empty: nothing."""
        for service, mine in self.canary.items():
            theirs = stable.get(service, Strength())
            needed = max(1, math.ceil(weight * theirs.units / WEIGHT_SUM))
            if mine.units < needed:
                each = (mine if mine.units else theirs).each
                return f"capacity {mine.num_instances} of {math.ceil(needed / each)} {service}s"
        return ""


def look(spec: Spec, arms: Arms, instances: Sequence[Instance]) -> Sight:
    """Look at the arms."""
    canary, wrong = _lane(spec.model, arms.canary, instances)
    stable, _ = _lane(spec.model, arms.compared, instances)
    moved = [(service, version) for service, version in arms.canary if service in spec.moved]
    theirs = [i for service, version in moved for i in _of(spec.model, service, version, instances)]
    starting = next((i for i in theirs if i.status.state is State.STARTING), None)
    return Sight(
        stable_lane=stable.id if stable else "",
        canary_lane=canary.id if canary else "",
        able=canary is not None and canary.takes_calls,
        activity=_activity(starting) if starting else "",
        starts=frozenset((i.registration.instance, i.registered_at) for i in theirs),
        canary={service: strength(spec.model, service, version, instances) for service, version in moved},
        wrong=wrong,
        same_vocabulary=canary.vocabulary == stable.vocabulary if canary and stable else None,
    )


def strength(model: str, service: Service, version: str, instances: Iterable[Instance]) -> Strength:
    """What a version of a service can bear. A unit is a sequence, or an instance where it does not count those."""
    able = [i for i in _of(model, service, version, instances) if i.takes_calls]
    return Strength(len(able), sum(i.status.capacity.num_sequences or 1 for i in able))


def arms_for(spec: Spec, shares: Sequence[Share], instances: Sequence[Instance]) -> Arms:
    """The arms of a rollout of a model whose traffic is shared out like this.

    Raises:
        RolloutInvalid: there is nothing to move, or nothing to move to; with what would do.
    """
    stable = tuple(sorted((share for share in shares if share.weight), key=lambda share: -share.weight))
    if not stable:
        raise RolloutInvalid(f"model: {spec.model!r} has no traffic to move: accepted: a model with a version")
    before = dict(stable[0].versions)
    canary: Versions = tuple(
        (service, spec.to_version if service in spec.moved else version) for service, version in stable[0].versions
    )
    if canary == stable[0].versions:
        raise RolloutInvalid(f"to_version: {spec.to_version!r}: {spec.model} runs it already: accepted: another")
    for service in spec.moved:
        _check_announced(spec.model, service, spec.to_version, instances)
    if any(share.versions == canary for share in stable):
        raise RolloutInvalid(
            f"to_version: {spec.to_version!r} has a share of the traffic by serin.yaml already: accepted: a version "
            "of weight 0 there"
        )
    baseline = None
    if spec.baseline:
        name = before[spec.service] + BASELINE_SUFFIX
        _check_announced(spec.model, spec.service, name, instances)
        baseline = tuple((service, name if service is spec.service else v) for service, v in stable[0].versions)
        _check_same_files(spec.model, spec.service, before[spec.service], name, instances)
    return Arms(stable, canary, baseline)


def _check_announced(model: str, service: Service, version: str, instances: Iterable[Instance]) -> None:
    mine = [i.registration for i in instances if i.registration.service is service and i.registration.model == model]
    known = sorted({registration.version for registration in mine})
    if version not in known:
        raise RolloutInvalid(
            f"to_version: nobody announces {service} {version} of {model}: accepted: {', '.join(known) or 'none'}; "
            f"`serin add {service} --model {model} --version {version} --path DIR` starts one"
        )


def _check_same_files(model: str, service: Service, version: str, baseline: str, instances: Sequence[Instance]) -> None:
    artifacts = {
        i.status.digests.artifact
        for name in (version, baseline)
        for i in _of(model, service, name, instances)
        if i.status.digests.artifact
    }
    if len(artifacts) > 1:
        raise RolloutInvalid(f"baseline: {service} {baseline} runs other files than {version}: accepted: the same ones")


def _lane(model: str, versions: Versions, instances: Iterable[Instance]) -> tuple[Lane | None, str]:
    formed = form_lanes(ModelPlan(model, shares=(Share(versions, 1),)), instances, {})
    wrong = formed.alarms[0].partition(": they form")[0].partition(": ")[2] if formed.alarms else ""
    return (formed.lanes[0] if formed.lanes else None), wrong


def _of(model: str, service: Service, version: str, instances: Iterable[Instance]) -> list[Instance]:
    return [
        i
        for i in instances
        if i.registration.service is service
        and i.registration.version == version
        and i.registration.model == (model if service in LANE_SERVICES else "")
    ]


def _activity(instance: Instance) -> str:
    said = instance.status
    doing = said.activity or "starting"
    return f"{doing} {said.progress:.0%}" if 0 < said.progress < 1 else doing
