"""What the control plane shows Prometheus. Labels come from closed sets: services and states."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serin_control.assembly import Control
from serin_control.instance import Service, State


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
