"""What Prometheus sees of lanes: their share of new sessions, and how many workers would take a call.

A set of versions that should have traffic and forms no lane is shown too, with no workers: its absence is the news. A
lane that drains is not: nobody needs to hear that it has no workers.
Labels are declared models and announced versions. Knows nothing about rollouts.
"""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serin_control.instance import MEMBER_SERVICES, Service
from serin_control.lanes import WEIGHT_SUM, Lane, Versions
from serin_control.latest import Latest
from serin_control.topology import ModelLanes, Topology

LABELS = ["model", "tokenizer", "worker", "cache"]
"""The last is empty of lanes that share the declared cache."""


class LaneGauges(Collector):
    """Gauges of the lanes that are published, read when scraped."""

    def __init__(self, topologies: Latest[Topology]) -> None:
        self._topologies = topologies

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Workers and weight of each lane, and lanes of each model."""
        workers = GaugeMetricFamily("serin_control_lane_workers", "Workers of a lane that take calls.", labels=LABELS)
        weights = GaugeMetricFamily(
            "serin_control_lane_weight_ratio", "Share of a lane in its model's new sessions.", labels=LABELS
        )
        lanes = GaugeMetricFamily(
            "serin_control_model_lanes", "Lanes of a model that would answer a new session.", labels=["model"]
        )
        topology = self._topologies.value
        for model in topology.models if topology is not None else ():
            lanes.add_metric([model.plan.name], sum(lane.takes_calls and lane.weight > 0 for lane in model.lanes))
            for versions, lane in _expected(model).items():
                labels = [model.plan.name, *_names(versions)]
                workers.add_metric(labels, _num_workers(lane))
                weights.add_metric(labels, lane.weight / WEIGHT_SUM if lane is not None else 0.0)
        yield from (workers, weights, lanes)


def _expected(model: ModelLanes) -> dict[Versions, Lane | None]:
    """Every set of versions that should have traffic, and its lane; and every further lane that does not drain."""
    planned: dict[Versions, Lane | None] = {share.versions: None for share in model.plan.shares if share.weight}
    return planned | {lane.versions: lane for lane in model.lanes if lane.versions not in model.plan.draining}


def _names(versions: Versions) -> list[str]:
    by_service = dict(versions)
    return [by_service.get(service, "") for service in MEMBER_SERVICES]


def _num_workers(lane: Lane | None) -> int:
    members = lane.members if lane is not None else ()
    return sum(i.takes_calls for member in members if member.service is Service.WORKER for i in member.instances)
