"""The mesh as callers should see it: models with their lanes, caches, gateways, policy.

Pure: the same plan, instances and memory of lanes give the same topology. Knows nothing about xDS or the wire.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from serin_control.instance import Instance, Service
from serin_control.lanes import Lane, Versions, form_lanes
from serin_control.plan import ModelPlan, Naming, Policy, TrafficPlan

Carried = Mapping[str, Mapping[str, Versions]]
"""Model to its lanes (id to versions) that carried traffic."""


@dataclass(frozen=True, slots=True)
class ModelLanes:
    """One model and its lanes, heaviest first."""

    plan: ModelPlan
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """All models ordered by name, what serves all of them, and the policy of gateways. Consistent in itself.

    ``service_shares`` and ``naming`` are those of :class:`TrafficPlan`.
    """

    models: tuple[ModelLanes, ...] = ()
    caches: tuple[Instance, ...] = ()
    gateways: tuple[Instance, ...] = ()
    policy: Policy = field(default_factory=Policy)
    service_shares: Mapping[Service, Mapping[str, int]] = field(default_factory=dict)
    naming: Naming = field(default_factory=Naming)

    @property
    def complete(self) -> bool:
        """Whether every declared model can be asked."""
        return bool(self.models) and all(any(lane.weight for lane in model.lanes) for model in self.models)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A topology, and what is wrong."""

    topology: Topology
    alarms: Mapping[str, str]


def draw(plan: TrafficPlan, instances: Iterable[Instance], carried: Carried) -> Drawn:
    """Draw the topology of what is planned and runs, with the lanes that carried traffic before."""
    everything = tuple(replace(one, registered_at=0.0) for one in instances)  # who registers again changes nothing here
    models: list[ModelLanes] = []
    alarms: dict[str, str] = {}
    for name in sorted(plan.models):
        formed = form_lanes(plan.models[name], everything, carried.get(name, {}))
        models.append(ModelLanes(plan.models[name], formed.lanes))
        alarms |= {f"{name}/{index}": sentence for index, sentence in enumerate(formed.alarms)}
    alarms |= _undeclared(plan, everything) | _lost(everything) | _refused(everything)
    caches, gateways = _of(Service.CACHE, everything), _of(Service.GATEWAY, everything)
    topology = Topology(tuple(models), caches, gateways, plan.policy, plan.service_shares, plan.naming)
    return Drawn(topology, alarms)


def _of(service: Service, instances: Iterable[Instance]) -> tuple[Instance, ...]:
    return tuple(i for i in instances if i.registration.service is service and i.serves)


def _undeclared(plan: TrafficPlan, instances: Iterable[Instance]) -> dict[str, str]:
    models = {i.registration.model for i in instances if i.registration.model} - set(plan.models)
    return {
        f"undeclared/{model}": f"model {model} runs but is not declared in serin.yaml: it gets no traffic"
        for model in models
    }


def _lost(instances: Iterable[Instance]) -> dict[str, str]:
    by_cluster: dict[str, list[str]] = {}
    for instance in instances:
        if instance.lost:
            by_cluster.setdefault(instance.registration.cluster, []).append(instance.registration.instance)
    return {
        f"lost/{cluster}": f"{cluster}: {', '.join(names)} fell silent together: kept as the last known until heard "
        "again or until another instance takes over"
        for cluster, names in by_cluster.items()
    }


def _refused(instances: Iterable[Instance]) -> dict[str, str]:
    return {
        f"refused/{i.registration.instance}": f"{i.registration.instance} gets no traffic: {i.refusal}"
        for i in instances
        if i.refusal
    }
