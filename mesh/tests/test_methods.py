"""What a method's name says about it."""

import pytest
from serin_mesh.methods import is_infrastructure, is_open_ended


@pytest.mark.parametrize(
    ("method", "infrastructure", "open_ended"),
    [
        ("/serin.worker.v1.WorkerService/Generate", False, False),
        ("/serin.worker.v1.WorkerService/WatchCache", False, True),
        ("/serin.control.v1.RegistryService/Announce", False, True),
        ("/serin.tokenizer.v1.TokenizerService/Detokenize", False, True),
        ("/serin.tokenizer.v1.TokenizerService/Decode", False, False),
        ("/serin.worker.v1.WorkerService/Work", False, True),
        ("/grpc.health.v1.Health/Check", True, True),
        ("/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics", True, True),
        ("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", True, True),
        ("/evil.grpc.health.v1.Health/Check", False, False),
    ],
)
def test_methods(method: str, infrastructure: bool, open_ended: bool) -> None:
    """Infrastructure and watches need no deadline; only infrastructure is answered before readiness."""
    assert is_infrastructure(method) is infrastructure
    assert is_open_ended(method) is open_ended
