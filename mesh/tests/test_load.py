"""Load reports: streamed out of band at the interval that a balancer asks for."""

import pytest
from google.protobuf.duration_pb2 import Duration
from serin_mesh.load import LoadReport
from serin_mesh.readiness import Readiness
from serin_mesh.testing import running
from xds.service.orca.v3 import orca_pb2, orca_pb2_grpc


async def test_reports_follow_the_load(echo) -> None:
    """Each report is asked for anew; they flow before the service is ready and without a deadline."""
    asked = []

    def load() -> LoadReport:
        asked.append(1)
        return LoadReport(utilization=len(asked) / 10, requests_per_s=5, errors_per_s=1, named={"kv": 0.25})

    async with running(echo.register, load=load, readiness=Readiness()) as server, server.connect() as channel:
        request = orca_pb2.OrcaLoadReportRequest(report_interval=Duration(nanos=1))
        call = orca_pb2_grpc.OpenRcaServiceStub(channel).StreamCoreMetrics(request)
        first, second = await call.read(), await call.read()
        call.cancel()
    assert first.application_utilization == pytest.approx(0.1)
    assert second.application_utilization == pytest.approx(0.2)
    assert (first.rps_fractional, first.eps, dict(first.named_metrics)) == (5, 1, {"kv": 0.25})
