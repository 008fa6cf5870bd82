"""Load of this instance, told out of band to whoever balances over it (ORCA, ``xds.service.orca.v3``).

Knows nothing about what loads the instance: a callable says.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import grpc
from xds.data.orca.v3 import orca_load_report_pb2
from xds.service.orca.v3 import orca_pb2, orca_pb2_grpc

MIN_INTERVAL_S = 0.1
DEFAULT_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Load now. Weighted round robin divides ``requests_per_s`` by the utilization to get an endpoint's weight."""

    utilization: float = 0.0
    """As the application sees it, 0 and up; 1: fully used."""
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    named: Mapping[str, float] = field(default_factory=dict)
    """Further figures, for example ``{"kv": 0.4}`` for the share of KV blocks in use."""


class LoadServicer(orca_pb2_grpc.OpenRcaServiceServicer):
    """Streams load reports at the interval each balancer asks for, 0.1 s or more."""

    def __init__(self, load: Callable[[], LoadReport]) -> None:
        self._load = load

    async def StreamCoreMetrics(  # noqa: N802 - the method's name in the contract
        self,
        request: orca_pb2.OrcaLoadReportRequest,
        context: grpc.aio.ServicerContext[orca_pb2.OrcaLoadReportRequest, orca_load_report_pb2.OrcaLoadReport],
    ) -> AsyncIterator[orca_load_report_pb2.OrcaLoadReport]:
        """Report now and at every interval until the balancer goes away."""
        asked = request.report_interval
        interval_s = asked.seconds + asked.nanos / 1e9 if request.HasField("report_interval") else DEFAULT_INTERVAL_S
        while True:
            yield to_message(self._load())
            await asyncio.sleep(max(MIN_INTERVAL_S, interval_s))


def to_message(report: LoadReport) -> orca_load_report_pb2.OrcaLoadReport:
    """A report as it travels."""
    return orca_load_report_pb2.OrcaLoadReport(
        application_utilization=report.utilization,
        rps_fractional=report.requests_per_s,
        eps=report.errors_per_s,
        named_metrics=dict(report.named),
    )
