"""What the control plane shows Prometheus. Labels come from closed sets: services, states, origins of alarms, lanes."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serin_control.assembly import Control
from serin_control.instance import Service, State
from serin_control.lane_gauges import LaneGauges
from serin_control.rollout_gauges import add_rollout_gauges


def add_gauges(control: Control, into: CollectorRegistry) -> None:
    """Show a control plane's state; once a process."""
    Gauge("serin_control_alarms", "Standing alarms.", registry=into).set_function(
        lambda: len(control.alarms.sentences())
    )
    Gauge("serin_control_refusals", "xDS clients that refuse what they were sent.", registry=into).set_function(
        lambda: control.ads.num_refusing
    )
    Gauge("serin_control_streams", "xDS clients.", registry=into).set_function(lambda: control.ads.num_streams)
    Gauge("serin_control_snapshot", "Number of the snapshot that is published.", registry=into).set_function(
        lambda: control.publisher.snapshots.version
    )
    into.register(_Instances(control))
    into.register(_AlarmsByKind(control))
    into.register(LaneGauges(control.plane.topologies))
    add_rollout_gauges(control.newest, into)


class _Instances(Collector):
    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Instances by service and state."""
        family = GaugeMetricFamily("serin_control_instances", "Instances with a lease.", labels=["service", "state"])
        instances = self._control.plane.registry.instances()
        for service in Service:
            for state in State:
                num = sum(i.registration.service is service and i.state is state for i in instances)
                family.add_metric([str(service), str(state)], num)
        yield family
        lost = GaugeMetricFamily(
            "serin_control_lost_instances", "Instances kept although their lease has ended.", labels=["service"]
        )
        for service in Service:
            lost.add_metric([str(service)], sum(i.registration.service is service and i.lost for i in instances))
        yield lost


class _AlarmsByKind(Collector):
    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Standing alarms by origin; those of which none stands are not there."""
        family = GaugeMetricFamily("serin_control_alarms_by_kind", "Standing alarms by origin.", labels=["kind"])
        for kind, num in sorted(self._control.alarms.kinds().items()):
            family.add_metric([kind], num)
        yield family
