"""The tokenizer service's unary calls: whose time is up is told truly, and a prompt's bound travels along."""

import asyncio

import pytest
from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream import tokenizer
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.upstream.tokenizer import GrpcTokenizer
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running


class Silent(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """A service that answers once its gate is open."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.requests = []

    async def Encode(self, request, context):  # noqa: N802
        """Wait, then one id."""
        self.requests.append(request)
        await self.gate.wait()
        return tokenizer_pb2.EncodeResponse(runs=[tokens_pb2.TokenRun(token_ids=[1])], vocabulary_digest="vocabulary")


@pytest.fixture
async def asked():
    """A service and a gateway's view of it."""
    service = Silent()

    def add(server):
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server)

    async with running(add, "tokenizer") as host:
        channels = Channels(GatewaySettings(), FixedTargets({"tokenizer.small": host.address}))
        yield service, GrpcTokenizer(channels)
        await channels.close()


def scope(timeout_s: float) -> CallScope:
    """A request with so much time."""
    return CallScope("req", "small", small_lane(), "t", timeout_s)


async def test_a_silent_tokenizer_is_not_the_callers_deadline(asked, monkeypatch):
    """The call's own limit ends it: the service is named. The caller's limit ends it: it is the caller's."""
    _, client = asked
    monkeypatch.setattr(tokenizer, "TIMEOUT_S", 0.1)
    with pytest.raises(MeshError, match=r"tokenizer\.small did not answer within 0\.1 s") as late:
        await client.encode(scope(20.0), "hi")
    assert late.value.reason is Reason.UPSTREAM_UNAVAILABLE
    monkeypatch.setattr(tokenizer, "TIMEOUT_S", 20.0)
    with pytest.raises(MeshError) as late:
        await client.encode(scope(0.1), "hi")
    assert late.value.reason is Reason.DEADLINE_EXCEEDED


async def test_the_service_is_told_how_much_fits(asked):
    """One id fewer than the lane's context, so that it can refuse before it encodes."""
    service, client = asked
    service.gate.set()
    assert await client.encode(scope(20.0), "hi") == [1]
    assert service.requests[0].max_token_count == 1023
