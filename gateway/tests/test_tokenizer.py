"""The tokenizer service's unary calls: whose time is up is told truly, and a prompt's bound travels along."""

import asyncio

import pytest
from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin_gateway.conversation import Conversation, Message
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


class Vocabulary(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Ids stand for their own decimals; every call is kept."""

    def __init__(self):
        self.requests = []
        self.decoding = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def Encode(self, request, context):  # noqa: N802
        """One id."""
        self.requests.append(request)
        return tokenizer_pb2.EncodeResponse(runs=[tokens_pb2.TokenRun(token_ids=[1])], vocabulary_digest="vocabulary")

    async def Render(self, request, context):  # noqa: N802
        """One id."""
        self.requests.append(request)
        segment = tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1]))
        return tokenizer_pb2.RenderResponse(segments=[segment], token_count=1, vocabulary_digest="vocabulary")

    async def Decode(self, request, context):  # noqa: N802
        """Their decimals, once the gate is open."""
        self.requests.append(request)
        self.decoding.set()
        await self.gate.wait()
        texts = [" ".join(map(str, run.token_ids)) for run in request.runs]
        return tokenizer_pb2.DecodeResponse(texts=texts, raw=[text.encode() for text in texts])

    async def DescribeTokenizer(self, request, context):  # noqa: N802
        """A hundred thousand ids."""
        self.requests.append(request)
        return tokenizer_pb2.DescribeTokenizerResponse(vocabulary_digest="vocabulary", vocabulary_size=100_000)


@pytest.fixture
async def known():
    """A service with a vocabulary, and a gateway's view of it."""
    service = Vocabulary()

    def add(server):
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server)

    async with running(add, "tokenizer") as host:
        channels = Channels(GatewaySettings(), FixedTargets({"tokenizer.small": host.address}))
        yield service, GrpcTokenizer(channels)
        await channels.close()


async def test_what_is_wanted_of_special_tokens_travels_along(known):
    """Both ways, and whether an answer begins behind a conversation."""
    service, client = known
    for wanted in (True, False):
        await client.encode(scope(20.0), "hi", add_special_tokens=wanted)
        assert service.requests.pop().omit_special_tokens is not wanted
        assert await client.decode(scope(20.0), [7, 8], keep_special_tokens=wanted) == "7 8"
        assert service.requests.pop().keep_special_tokens is wanted
        await client.render(scope(20.0), Conversation([Message("user", ["hi"])], begins_answer=wanted))
        request = service.requests.pop()
        assert (request.omit_generation_prompt, request.continue_final_message) == (not wanted, False)


async def test_very_many_tokens_are_spelled_in_parts(known):
    """No call has more than the service takes; what is known is not asked again."""
    service, client = known
    ids = [*range(10_000), 3, 9_999]
    assert await client.token_bytes(scope(20.0), ids) == [str(one).encode() for one in ids]
    assert [len(request.runs) for request in service.requests] == [4096, 4096, 10_000 - 2 * 4096]
    assert await client.token_bytes(scope(20.0), [5, 10_000]) == [b"5", b"10000"]
    assert [list(run.token_ids) for run in service.requests[-1].runs] == [[10_000]]


async def test_spellings_that_are_forgotten_meanwhile_are_still_told(known, monkeypatch):
    """Too many are kept: another call has them forgotten while this one waits for the rest of its own."""
    service, client = known
    monkeypatch.setattr(tokenizer, "MAX_SPELLED", 3)
    await client.token_bytes(scope(20.0), [1, 2])
    service.gate.clear()
    service.decoding.clear()
    waiting = asyncio.create_task(client.token_bytes(scope(20.0), [1, 2, 3]))
    await asyncio.wait_for(service.decoding.wait(), 5)
    other = asyncio.create_task(client.token_bytes(scope(20.0), [7, 8, 9]))
    service.gate.set()
    assert await other == [b"7", b"8", b"9"]
    assert await waiting == [b"1", b"2", b"3"]


async def test_a_vocabulary_is_measured_once(known):
    """Its digest names it; a tokenizer that has another one is not believed."""
    service, client = known
    assert [await client.vocabulary_size(scope(20.0)) for _ in range(3)] == [100_000] * 3
    assert len(service.requests) == 1
    other = CallScope("req", "small", small_lane(vocabulary_digest="another"), "t", 20.0)
    with pytest.raises(MeshError) as refused:
        await client.vocabulary_size(other)
    assert refused.value.reason is Reason.VOCABULARY_MISMATCH
