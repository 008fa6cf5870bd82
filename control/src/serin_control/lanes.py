"""Lanes: compatible sets of versions that really run, and the share of new sessions each gets.

A set is compatible when its tokenizer and its worker hold one vocabulary. A set may name a version of the cache, which
then has the lane's recalls while it runs. It never decides whether the lane is there: a cache that is gone costs hits,
no answers. Knows nothing about leases, clusters in xDS or the wire; everything here is a pure function of the plan, the
instances and which lanes carried traffic before.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from serin_mesh.identity import lane_digest

from serin_control.instance import LANE_SERVICES, Instance, Service
from serin_control.plan import ModelPlan, Share

WEIGHT_SUM = 10_000
"""Weights of a model's lanes sum to this; the least weight of a lane that new sessions may still draw is 1."""

MAX_LIVE_LANES = 4
"""Most lanes of a model that are published: each costs every client routes and connections."""

Versions = tuple[tuple[Service, str], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One service's version in a lane, with the instances that run it (ready, suspect or draining).

    A cache has no artifact digest: it is its version, so that its lane keeps its name while nothing of it runs.
    """

    service: Service
    version: str
    artifact_digest: str
    cluster: str
    instances: tuple[Instance, ...]

    @property
    def takes_calls(self) -> bool:
        """Whether a new call would be answered."""
        return any(instance.takes_calls for instance in self.instances)


@dataclass(frozen=True, slots=True)
class Lane:
    """One compatible set of versions. ``weight`` is its share of new sessions, out of the model's 10,000."""

    id: str
    versions: Versions
    weight: int
    vocabulary: str
    kv: str
    context_length: int
    block_size: int
    members: tuple[Member, ...]

    @property
    def takes_calls(self) -> bool:
        """Whether a new request would be answered by every member that it needs."""
        return all(member.takes_calls for member in self.members if member.service in LANE_SERVICES)


@dataclass(frozen=True, slots=True)
class Formed:
    """Lanes of one model, heaviest first, and what is wrong with it.

    Attributes:
        mismatched: sets that run and whose members hold different vocabularies, so that they form no lane.
        alarms: everything that is wrong, for people.
    """

    lanes: tuple[Lane, ...]
    alarms: tuple[str, ...] = ()
    mismatched: tuple[Versions, ...] = ()


def form_lanes(plan: ModelPlan, instances: Iterable[Instance], carried: Mapping[str, Versions]) -> Formed:
    """Lanes of one model.

    Args:
        plan: what its traffic should do.
        instances: everything that runs.
        carried: lanes (id to versions) that carried traffic before. They keep the least weight as long as something
            of theirs runs, also when the plan names them no more or at 0: their sessions must end well. Those that the
            plan drains have none at all while another lane takes calls: calls that name them are answered, and nobody
            draws them. Those that it retires have had their time. Those that it keeps need not be
            remembered, and the first of them that takes calls has everything while nothing with a share does.
    """
    serving = [i for i in instances if i.serves]
    mine = [i for i in serving if i.registration.model == plan.name and i.status.digests.artifact]
    mine += [i for i in serving if i.registration.service is Service.CACHE]
    shares = {share.versions: share for share in plan.shares}
    carrying = {lane: versions for lane, versions in carried.items() if versions not in plan.retired}
    for versions in carrying.values():
        shares.setdefault(versions, Share(versions, 0))
    lanes, mismatched = [], []
    for share in shares.values():
        members = [_member(service, version, mine) for service, version in share.versions]
        if not all(member.instances for member in members if member.service in LANE_SERVICES):
            continue
        lane = _lane(plan.name, share, members)
        if lane is None:
            mismatched.append(share.versions)
        elif share.weight or lane.id in carrying or share.versions in plan.kept:
            lanes.append(lane)
    alarms = [f"model {plan.name}: {mismatch(versions)}: they form no lane" for versions in mismatched]
    if len(lanes) > MAX_LIVE_LANES:
        lanes.sort(key=lambda lane: (-lane.takes_calls, -lane.weight, _turn(lane, plan)))
        alarms.append(f"model {plan.name}: {len(lanes)} lanes run, at most {MAX_LIVE_LANES} are published")
    weighed = _weigh(lanes[:MAX_LIVE_LANES], plan)
    alarms += _stand_ins(plan, weighed, mine)
    wanted = {*(share.versions for share in plan.shares), *plan.draining}
    kept = [lane for lane in weighed if lane.weight or lane.versions in wanted or lane.takes_calls]
    kept.sort(key=lambda lane: (-lane.weight, lane.versions))
    return Formed(tuple(kept), tuple(alarms), tuple(mismatched))


def with_version(versions: Versions, moved: Collection[Service], version: str) -> Versions:
    """A set of which some services have another version; one that it did not name is named then."""
    changed = dict(versions) | dict.fromkeys(moved, version)
    return tuple(changed.items())


def with_shared(versions: Versions, shared: Mapping[Service, str]) -> Versions:
    """A set and the versions of what it shares with other sets: all that its requests meet."""
    return (*versions, *((service, version) for service, version in shared.items() if service not in dict(versions)))


def named(versions: Iterable[tuple[Service, str]]) -> str:
    """Versions for people: ``tokenizer v1, worker v2``."""
    return ", ".join(f"{service} {version}" for service, version in versions)


def mismatch(versions: Versions) -> str:
    """Why a set can form no lane, for people."""
    return f"{named(versions)} hold different vocabularies"


def share_out(weights: Sequence[int], total: int = WEIGHT_SUM) -> list[int]:
    """Whole numbers in the proportion of ``weights`` that sum to ``total``, each at least 1 (largest remainder).

    All weights 0: equal shares.
    """
    if not weights:
        return []
    base = list(weights) if any(weights) else [1] * len(weights)
    exact = [total * weight / sum(base) for weight in base]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(base)), key=lambda index: (parts[index] - exact[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    for index in (index for index, part in enumerate(parts) if part == 0):
        largest = max(range(len(parts)), key=lambda other: (parts[other], -base[other]))
        parts[largest] -= 1
        parts[index] = 1
    return parts


def _weigh(lanes: Sequence[Lane], plan: ModelPlan) -> list[Lane]:
    """Traffic goes to lanes that can take it; where none can, all keep their shares (the fault may be ours).

    Where none with a share can, the first of those that are kept has all of it. Those that drain have some only while
    they alone can: better their answers than none.
    """
    drawn = [lane for lane in lanes if lane.versions not in plan.draining]
    having = [lane for lane in drawn if lane.takes_calls] or [lane for lane in lanes if lane.takes_calls] or drawn
    shares = [lane.weight for lane in having]
    if not any(shares):
        first = min(having, key=lambda lane: _turn(lane, plan), default=None)
        shares = [int(lane is first and lane.versions in plan.kept) for lane in having]
    weights = share_out(shares)
    by_id = dict(zip((lane.id for lane in having), weights, strict=True))
    return [replace(lane, weight=by_id.get(lane.id, 0)) for lane in lanes]


def _turn(lane: Lane, plan: ModelPlan) -> int:
    """Whose turn it is to answer where nothing with a share does: kept lanes in their order, then all others."""
    return plan.kept.index(lane.versions) if lane.versions in plan.kept else len(plan.kept)


def _stand_ins(plan: ModelPlan, weighed: Sequence[Lane], instances: Sequence[Instance]) -> list[str]:
    """An alarm where what should have the traffic takes no calls and something else does."""
    shares = {share.versions for share in plan.shares if share.weight}
    able = [lane for lane in weighed if lane.weight and lane.takes_calls]
    if not shares or not able or any(lane.versions in shares for lane in able):
        return []
    answering, wanted = max(able, key=lambda lane: lane.weight), max(plan.shares, key=lambda share: share.weight)
    present = [pair for pair in answering.versions if pair not in wanted.versions]
    needed = [(service, version) for service, version in wanted.versions if service in LANE_SERVICES]
    absent = [pair for pair in needed if not _member(*pair, instances).takes_calls] or needed
    why = ", which had the traffic before," if answering.versions in plan.kept else ""
    return [
        f"model {plan.name}: nothing of {named(absent)} takes calls: {named(present)}{why} answers until it does: "
        "`serin status` shows what is the matter with it"
    ]


def _member(service: Service, version: str, instances: Sequence[Instance]) -> Member:
    alike = tuple(i for i in instances if i.registration.service is service and i.registration.version == version)
    artifact = next((i.status.digests.artifact for i in alike if i.status.digests.artifact), "")
    cluster = alike[0].registration.cluster if alike else ""
    if service is Service.CACHE:
        artifact = ""
    return Member(service, version, artifact, cluster, alike)


def _lane(model: str, share: Share, members: Sequence[Member]) -> Lane | None:
    """The lane, or None where its members hold different vocabularies."""
    needed = [member for member in members if member.service in LANE_SERVICES]
    vocabularies = {instance.status.digests.vocabulary for member in needed for instance in member.instances}
    if len(vocabularies) != 1:
        return None
    workers = next(member.instances for member in members if member.service is Service.WORKER)
    return Lane(
        id=lane_digest(model, {str(m.service): (m.version, m.artifact_digest) for m in members}),
        versions=share.versions,
        weight=share.weight,
        vocabulary=vocabularies.pop(),
        kv=workers[0].status.digests.kv,
        context_length=min(worker.status.capacity.context_length for worker in workers),
        block_size=workers[0].status.capacity.block_size,
        members=tuple(members),
    )
