"""What is routed where, in our own words: targets, clusters, endpoints, and whether they fit together.

Pure: a topology in, a routing out. Knows nothing about xDS messages, versions or clients.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from serin_control.admission import split_endpoint
from serin_control.instance import LANE_SERVICES, Instance, Service, State
from serin_control.lanes import Lane, share_out
from serin_control.topology import ModelLanes, Topology

Split = tuple[tuple[str, int], ...]
"""Clusters and their weights, each above 0."""

GATEWAY = "gateway"
GATEWAY_REST = "gateway-rest"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address of a cluster. A draining one gets no new calls, and keeps those that are pinned to it."""

    host: str
    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Instances that are alike.

    Attributes:
        name: the target and the version: ``gateway@v1``.
        service: what they are.
        endpoints: where they are.
        http1: it speaks HTTP/1.1 (REST), else HTTP/2 (gRPC).
        stand_ins: (cluster, endpoints) of the versions that answer a call when none of its own endpoints can, in the
            order they are tried.
    """

    name: str
    service: Service
    endpoints: tuple[Endpoint, ...]
    http1: bool = False
    stand_ins: tuple[tuple[str, tuple[Endpoint, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One name that callers use, ``worker.small`` or ``cache``, and where its calls go.

    Attributes:
        name: the target.
        service: what answers it.
        pinned: (lane, cluster): calls that name a lane go to its cluster; calls that name another are refused, but by
            a cache: most lanes have none of their own.
        by_vocabulary: (vocabulary, split): calls that carry ids and name no lane. A vocabulary that only lanes without
            new sessions hold is among them: its ids mean something nowhere else.
        split: everything else. Empty: nothing answers, calls are refused.
    """

    name: str
    service: Service
    pinned: tuple[tuple[str, str], ...] = ()
    by_vocabulary: tuple[tuple[str, Split], ...] = ()
    split: Split = ()

    @property
    def clusters(self) -> frozenset[str]:
        """Every cluster it names."""
        weighted = [*self.split, *(pair for _, split in self.by_vocabulary for pair in split)]
        return frozenset([cluster for cluster, _ in weighted] + [cluster for _, cluster in self.pinned])


@dataclass(frozen=True, slots=True)
class Routing:
    """All targets and clusters. The targets ``gateway`` and ``gateway-rest`` are the edge's."""

    targets: Mapping[str, Target]
    clusters: Mapping[str, Cluster]


def route(topology: Topology) -> Routing:
    """The routing of a topology."""
    targets: dict[str, Target] = {}
    clusters: dict[str, Cluster] = {}
    for model in topology.models:
        for service in LANE_SERVICES:
            target = _model_target(service, model)
            targets[target.name] = target
        for member in (member for lane in model.lanes for member in lane.members if member.service in LANE_SERVICES):
            clusters[member.cluster] = Cluster(member.cluster, member.service, _endpoints(member.instances))
    own_caches = tuple(_own_caches(topology.models))
    alike = dict(_by_cluster(topology.caches))
    split = _shared(alike, topology.service_shares.get(Service.CACHE))
    targets[str(Service.CACHE)] = Target(str(Service.CACHE), Service.CACHE, own_caches, split=split)
    clusters |= {cluster: Cluster(cluster, Service.CACHE, _endpoints(group)) for cluster, group in alike.items()}
    rest = [_at_http(instance) for instance in topology.gateways if instance.registration.http_endpoint]
    for name, instances in ((GATEWAY, topology.gateways), (GATEWAY_REST, rest)):
        alike = {cluster.replace(GATEWAY, name, 1): group for cluster, group in _by_cluster(instances)}
        split = _shared(alike, topology.service_shares.get(Service.GATEWAY))
        targets[name] = Target(name, Service.GATEWAY, split=split)
        clusters |= {cluster.name: cluster for cluster in _gateways(alike, split, http1=name == GATEWAY_REST)}
    return Routing(targets, clusters)


def carry_over(old: Routing | None, new: Routing) -> Routing:
    """``new``, where a target that answers nothing any more keeps what it had: empty never replaces full."""
    if old is None:
        return new
    targets, clusters = dict(new.targets), dict(new.clusters)
    for name, target in new.targets.items():
        before = old.targets.get(name)
        if not target.split and before is not None and before.split:
            targets[name] = before
            clusters |= {cluster: old.clusters[cluster] for cluster in before.clusters if cluster not in clusters}
    return Routing(targets, clusters)


def linger(routing: Routing, leaving: Iterable[Cluster]) -> Routing:
    """``routing`` and clusters that nothing names any more: calls on their way to them end well."""
    return replace(routing, clusters={cluster.name: cluster for cluster in leaving} | dict(routing.clusters))


def inconsistencies(routing: Routing) -> Iterator[str]:
    """What would break clients, a sentence each; empty for a routing that may be published."""
    for target in routing.targets.values():
        for missing in sorted(target.clusters - routing.clusters.keys()):
            yield f"target {target.name} names cluster {missing}, which does not exist"
        for split in (target.split, *(split for _, split in target.by_vocabulary)):
            for name, weight in split:
                if weight < 1:
                    yield f"target {target.name} gives cluster {name} the weight {weight}"
        for vocabulary in (vocabulary for vocabulary, split in target.by_vocabulary if not split):
            yield f"target {target.name} names vocabulary {vocabulary} and no cluster that holds it"
    for cluster in routing.clusters.values():
        if not cluster.endpoints:
            yield f"cluster {cluster.name} has no endpoints"
        everything = (*cluster.endpoints, *(one for _, others in cluster.stand_ins for one in others))
        addresses = [(endpoint.host, endpoint.port) for endpoint in everything]
        if len(set(addresses)) < len(addresses):
            yield f"cluster {cluster.name} has an endpoint twice"


def targets_of(model: str, lane: Lane) -> frozenset[str]:
    """Names of the targets that pin calls to a lane of a model."""
    own = [Service.CACHE for member in lane.members if member.service is Service.CACHE and member.takes_calls]
    return frozenset([*(f"{service}.{model}" for service in LANE_SERVICES), *map(str, own)])


def _model_target(service: Service, model: ModelLanes) -> Target:
    vocabularies = sorted({lane.vocabulary for lane in model.lanes})
    return Target(
        name=f"{service}.{model.plan.name}",
        service=service,
        pinned=tuple((lane.id, _cluster_of(lane, service)) for lane in model.lanes),
        by_vocabulary=tuple(
            (digest, _split_of_ids(service, [lane for lane in model.lanes if lane.vocabulary == digest]))
            for digest in vocabularies
        ),
        split=_split(service, model.lanes),
    )


def _own_caches(models: Iterable[ModelLanes]) -> Iterator[tuple[str, str]]:
    """Lanes with a cache of their own and its cluster. While it takes no calls they share the others' cache."""
    for lane in (lane for model in models for lane in model.lanes):
        yield from (
            (lane.id, member.cluster)
            for member in lane.members
            if member.service is Service.CACHE and member.takes_calls
        )


def _gateways(groups: Mapping[str, tuple[Instance, ...]], split: Split, *, http1: bool) -> Iterator[Cluster]:
    """Versions of the gateway. Any of them can answer any call: those with a share stand in for one that cannot."""
    endpoints = {cluster: _endpoints(group) for cluster, group in groups.items()}
    by_share = [cluster for cluster, _ in sorted(split, key=lambda pair: -pair[1])]
    for cluster, own in endpoints.items():
        others = {other: endpoints[other] for other in by_share if other != cluster}
        yield Cluster(cluster, Service.GATEWAY, own, http1, tuple(_elsewhere(own, others)))


def _elsewhere(
    own: Iterable[Endpoint], others: Mapping[str, tuple[Endpoint, ...]]
) -> Iterator[tuple[str, tuple[Endpoint, ...]]]:
    """Others' endpoints, each once: who died may be known still by an address that somebody else has by now."""
    taken = {(at.host, at.port) for at in own}
    for cluster, endpoints in others.items():
        free = tuple(at for at in endpoints if (at.host, at.port) not in taken)
        taken |= {(at.host, at.port) for at in free}
        if free:
            yield cluster, free


def _split_of_ids(service: Service, lanes: Sequence[Lane]) -> Split:
    """Lanes of one vocabulary share calls by weight; where none of them has new sessions, equally."""
    if not any(lane.weight for lane in lanes):
        lanes = [replace(lane, weight=part) for lane, part in zip(lanes, share_out([0] * len(lanes)), strict=True)]
    return _split(service, lanes)


def _split(service: Service, lanes: Iterable[Lane]) -> Split:
    weights: dict[str, int] = {}
    for lane in lanes:
        if lane.weight:
            cluster = _cluster_of(lane, service)
            weights[cluster] = weights.get(cluster, 0) + lane.weight
    return tuple(weights.items())


def _cluster_of(lane: Lane, service: Service) -> str:
    return next(member.cluster for member in lane.members if member.service is service)


def _by_cluster(instances: Iterable[Instance]) -> Iterator[tuple[str, tuple[Instance, ...]]]:
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.registration.cluster, []).append(instance)
    yield from ((cluster, tuple(group)) for cluster, group in groups.items())


def _shared(groups: Mapping[str, tuple[Instance, ...]], shares: Mapping[str, int] | None) -> Split:
    """Versions of a service without lanes share calls as planned, as far as those planned for can take some."""
    weights = {
        cluster: weight
        for cluster, group in groups.items()
        if (weight := (shares or {}).get(group[0].registration.version, 0)) and any(one.takes_calls for one in group)
    }
    if not weights:
        return _by_size(groups)
    return tuple(zip(weights, share_out(list(weights.values())), strict=True))


def _by_size(groups: Mapping[str, tuple[Instance, ...]]) -> Split:
    """Versions share calls by how many instances of each can take some."""
    sizes = {cluster: sum(instance.takes_calls for instance in group) for cluster, group in groups.items()}
    able = {cluster: size for cluster, size in sizes.items() if size} or dict.fromkeys(sizes, 1)
    return tuple(zip(able, share_out(list(able.values())), strict=True))


def _endpoints(instances: Iterable[Instance]) -> tuple[Endpoint, ...]:
    def endpoint(instance: Instance) -> Endpoint:
        host, port = split_endpoint(instance.registration.endpoint)
        return Endpoint(host, port, draining=instance.status.state is State.DRAINING)

    return tuple(sorted({(e.host, e.port): e for e in map(endpoint, instances)}.values()))


def _at_http(instance: Instance) -> Instance:
    return replace(instance, registration=replace(instance.registration, endpoint=instance.registration.http_endpoint))
