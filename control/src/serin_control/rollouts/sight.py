"""What of a rollout's two arms is there right now: lanes, capacity, starts.

Pure: instances in, a sight out. Knows nothing about steps or verdicts.
"""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote

from serin_control.errors import RolloutInvalid
from serin_control.instance import LANE_SERVICES, Instance, Service, State
from serin_control.lanes import WEIGHT_SUM, Formed, Lane, Versions, form_lanes, with_shared, with_version
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.rollout import Arms, Strength
from serin_control.rollouts.spec import Spec

BASELINE_SUFFIX = "-baseline"
"""A version of this name beside the old one is the same files in processes of their own."""


class Hearing(enum.Enum):
    """Who of a rollout's two arms speaks to this control plane: what others heard and stored does not count."""

    NOBODY = enum.auto()
    SOME = enum.auto()
    ALL = enum.auto()


@dataclass(frozen=True, slots=True)
class Sight:
    """Both arms at one moment.

    Attributes:
        stable_lane, canary_lane: ids; empty: it is not formed.
        stable_able: a new request on what was there before would be answered, as far as is known.
        compared_able: the same of what the canary is compared with.
        able: the same of the canary.
        silent: of a service that moves, everything that would answer is suspect.
        stable_silent: the same of what was there before.
        activity: what the canary does while it starts ("loading weights 40 %"); empty: nothing of it starts.
        starts: (instance, when it registered) of every process of the canary, whatever its state.
        canary: what it can bear, by service that moves.
        is_mismatched: its services run and hold different vocabularies: they can never form a lane.
        same_vocabulary: both arms hold one vocabulary; None: not known yet.
        canary_files: digests of the files that the canary's lane has, by service.
    """

    stable_lane: str = ""
    canary_lane: str = ""
    stable_able: bool = True
    compared_able: bool = True
    able: bool = False
    silent: bool = False
    stable_silent: bool = False
    activity: str = ""
    starts: frozenset[tuple[str, float]] = frozenset()
    canary: Mapping[Service, Strength] = field(default_factory=dict)
    is_mismatched: bool = False
    same_vocabulary: bool | None = None
    canary_files: Mapping[Service, str] = field(default_factory=dict)

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
    if not spec.moves_lanes:
        return _look_at_service(spec, arms, instances)
    formed = _formed(spec.model, arms.canary, instances)
    canary, stable = _lane(formed), _lane(_formed(spec.model, arms.compared, instances))
    compared_able = stable is not None and stable.takes_calls
    moved = [(service, version) for service, version in arms.canary if service in spec.moved]
    theirs = [i for service, version in moved for i in _of(spec.model, service, version, instances)]
    starting = next((i for i in theirs if i.status.state is State.STARTING), None)
    strengths = {service: strength(spec.model, service, version, instances) for service, version in moved}
    return Sight(
        stable_lane=stable.id if stable else "",
        canary_lane=canary.id if canary else "",
        stable_able=any(_takes_calls(spec.model, share.versions, instances) for share in arms.stable),
        compared_able=compared_able,
        able=canary is not None and canary.takes_calls and all(one.num_instances for one in strengths.values()),
        silent=any(_are_silent(_of(spec.model, service, version, instances)) for service, version in moved),
        stable_silent=any(
            _are_silent(_of(spec.model, service, version, instances))
            for service, version in arms.compared
            if service in spec.moved
        ),
        activity=activity(starting) if starting else "",
        starts=frozenset((i.registration.instance, i.registered_at) for i in theirs),
        canary=strengths,
        is_mismatched=bool(formed.mismatched),
        same_vocabulary=canary.vocabulary == stable.vocabulary if canary and stable else None,
        canary_files={one.service: one.artifact_digest for one in canary.members} if canary else {},
    )


def hearing(spec: Spec, arms: Arms, instances: Sequence[Instance]) -> Hearing:
    """Listen to the arms."""
    lanes = [arms.canary, arms.compared, *(share.versions for share in arms.stable)]
    members = {member for versions in lanes for member in versions}
    theirs = [i for service, version in members for i in _of(spec.model, service, version, instances)]
    num_heard = sum(not i.suspect for i in theirs)
    if not num_heard:
        return Hearing.NOBODY
    return Hearing.ALL if num_heard == len(theirs) else Hearing.SOME


def service_lane(service: Service, version: str) -> str:
    """What stands for a lane where a service is compared that all models share: ``gateway@v2``."""
    return f"{service}@{version}"


def _look_at_service(spec: Spec, arms: Arms, instances: Sequence[Instance]) -> Sight:
    (_, before), (_, to) = arms.compared[0], arms.canary[0]
    mine = strength("", spec.service, to, instances)
    theirs = _of("", spec.service, to, instances)
    starting = next((i for i in theirs if i.status.state is State.STARTING), None)
    return Sight(
        stable_lane=service_lane(spec.service, before),
        canary_lane=service_lane(spec.service, to),
        stable_able=any(
            strength("", service, version, instances).num_instances
            for share in arms.stable
            for service, version in share.versions
        ),
        compared_able=strength("", spec.service, before, instances).num_instances > 0,
        able=mine.num_instances > 0,
        silent=_are_silent(theirs),
        stable_silent=_are_silent(_of("", spec.service, before, instances)),
        activity=activity(starting) if starting else "",
        starts=frozenset((i.registration.instance, i.registered_at) for i in theirs),
        canary={spec.service: mine},
    )


def service_shares(service: Service, kept: Sequence[Share], instances: Iterable[Instance]) -> tuple[Share, ...]:
    """Who shares the calls of a service that all models share: as rollouts left it, else by how many instances run."""
    running: dict[str, int] = {}
    for instance in instances:
        if instance.registration.service is service and instance.takes_calls:
            running[instance.registration.version] = running.get(instance.registration.version, 0) + 1
    living = [share for share in kept if share.versions[0][1] in running]
    return tuple(living) or tuple(Share(((service, version),), num) for version, num in sorted(running.items()))


def strength(model: str, service: Service, version: str, instances: Iterable[Instance]) -> Strength:
    """What a version of a service can bear. A unit is a sequence, or an instance where it does not count those."""
    able = [i for i in _of(model, service, version, instances) if i.takes_calls]
    return Strength(len(able), sum(i.status.capacity.num_sequences or 1 for i in able))


def activity(instance: Instance) -> str:
    """What an instance does that starts: ``loading weights 40 %``."""
    said = instance.status
    if instance.refusal:
        return instance.refusal
    doing = said.activity or "starting"
    return f"{doing} {said.progress:.0%}" if 0 < said.progress < 1 else doing


def arms_for(
    spec: Spec, shares: Sequence[Share], instances: Sequence[Instance], shared: Mapping[Service, str] | None = None
) -> Arms:
    """The arms of a rollout of a model whose traffic is shared out like this.

    ``shared`` are the versions of what lanes share unless they name one of their own.

    Raises:
        RolloutInvalid: there is nothing to move, or nothing to move to; with what would do.
    """
    stable = tuple(sorted((share for share in shares if share.weight), key=lambda share: -share.weight))
    if not stable:
        raise RolloutInvalid(f"model: {spec.model!r} has no traffic to move: accepted: a model with a version")
    before = dict(with_shared(stable[0].versions, shared or {}))
    canary = with_version(stable[0].versions, spec.moved, spec.to_version)
    if len(stable) > 1 and not spec.moves_lanes:
        stable = tuple(share for share in stable if share.versions != canary) or stable
    if all(before.get(service) == spec.to_version for service in spec.moved):
        raise RolloutInvalid(f"to_version: {spec.to_version!r}: {spec.model} runs it already: accepted: another")
    for service in spec.moved:
        _check_announced(spec.model, service, spec.to_version, instances)
    if any(share.versions == canary for share in stable) and spec.moves_lanes:
        raise RolloutInvalid(
            f"to_version: {spec.to_version!r} has a share of the traffic by serin.yaml already: accepted: a version "
            "of weight 0 there"
        )
    baseline = None
    if spec.baseline:
        name = before[spec.service] + BASELINE_SUFFIX
        _check_baseline(spec.model, spec.service, before[spec.service], name, instances)
        baseline = tuple((service, name if service is spec.service else v) for service, v in stable[0].versions)
    return Arms(stable, canary, baseline)


def _check_announced(model: str, service: Service, version: str, instances: Iterable[Instance]) -> None:
    model = model if service in LANE_SERVICES else ""
    mine = [i.registration for i in instances if i.registration.service is service and i.registration.model == model]
    known = sorted({registration.version for registration in mine})
    if version not in known:
        raise RolloutInvalid(
            f"to_version: nobody announces {service} {version}{f' of {model}' if model else ''}: accepted: "
            f"{', '.join(known) or 'none'}; `serin add {service}{f' --model {model}' if model else ''} --version "
            f"{quote(version)} {'--path' if model else '--code'} DIR` starts one"
        )


def _check_baseline(model: str, service: Service, version: str, baseline: str, instances: Sequence[Instance]) -> None:
    """The old version's files must run in processes of their own."""
    named = f"{service} --model {model} --version {quote(baseline)}"
    start = f"`serin add {named}` (with --path of {version}'s files where serin.yaml does not declare {version})"
    old, new = (_of(model, service, name, instances) for name in (version, baseline))
    if not new:
        raise RolloutInvalid(
            f"baseline: nobody announces {service} {baseline} of {model}, which the new version is compared with: "
            f"{start} starts it, or leave the baseline out"
        )
    if len({i.status.digests.artifact for i in (*old, *new) if i.status.digests.artifact}) > 1:
        raise RolloutInvalid(
            f"baseline: {service} {baseline} runs other files than {version}: accepted: the same ones; "
            f"`serin remove {named}`, then {start}"
        )


def _are_silent(instances: Iterable[Instance]) -> bool:
    able = [i for i in instances if i.takes_calls]
    return bool(able) and all(i.suspect for i in able)


def _formed(model: str, versions: Versions, instances: Iterable[Instance]) -> Formed:
    """What one set of versions comes to, as if it had all traffic."""
    return form_lanes(ModelPlan(model, shares=(Share(versions, 1),)), instances, {})


def _lane(formed: Formed) -> Lane | None:
    return formed.lanes[0] if formed.lanes else None


def _takes_calls(model: str, versions: Versions, instances: Iterable[Instance]) -> bool:
    lane = _lane(_formed(model, versions, instances))
    return lane is not None and lane.takes_calls


def _of(model: str, service: Service, version: str, instances: Iterable[Instance]) -> list[Instance]:
    return [
        i
        for i in instances
        if i.registration.service is service
        and i.registration.version == version
        and i.registration.model == (model if service in LANE_SERVICES else "")
    ]
