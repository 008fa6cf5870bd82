"""The tokenizer service's unary calls: whose time is up and who is silent is told truly; bounds travel along."""

import asyncio

import pytest
from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin_gateway.conversation import Conversation, Message
from serin_gateway.grammar import Grammar, GrammarKind
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream import replicas, tokenizer
from serin_gateway.upstream.pulses import SILENT_TICKS, Pulses
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.upstream.tokenizer import GrpcTokenizer
from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running


class Gated(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """A service that answers once its gate is open."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.requests = []
        self._asked = asyncio.Condition()

    async def asked(self, count: int) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(60), self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= count)

    async def Encode(self, request, context):  # noqa: N802
        """Wait, then one id."""
        async with self._asked:
            self.requests.append(request)
            self._asked.notify_all()
        await self.gate.wait()
        return tokenizer_pb2.EncodeResponse(runs=[tokens_pb2.TokenRun(token_ids=[1])], vocabulary_digest="vocabulary")

    async def PrepareGrammar(self, request, context):  # noqa: N802
        """The grammar as it is."""
        self.requests.append(request)
        return tokenizer_pb2.PrepareGrammarResponse(grammar=request.grammar)


@pytest.fixture
async def asked():
    """A service and a gateway's view of it."""
    service = Gated()

    def add(server):
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server)

    async with running(add, "tokenizer") as host:
        channels = Channels(GatewaySettings(), FixedTargets({"tokenizer.small": host.address}))
        yield service, GrpcTokenizer(channels, Pulses())
        await channels.close()


def scope(timeout_s: float) -> CallScope:
    """A request with so much time."""
    return CallScope("req", "small", small_lane(), "t", timeout_s)


async def test_a_silent_tokenizer_is_not_the_callers_deadline(asked, monkeypatch):
    """The call's own limit ends it: the service is named. The caller's limit ends it: it is the caller's."""
    _, client = asked
    monkeypatch.setattr(replicas, "TIMEOUT_S", 0.1)
    with pytest.raises(MeshError, match=r"tokenizer\.small did not answer within 0\.1 s") as late:
        await client.encode(scope(20.0), "hi")
    assert late.value.reason is Reason.UPSTREAM_UNAVAILABLE
    monkeypatch.setattr(replicas, "TIMEOUT_S", 20.0)
    with pytest.raises(MeshError) as late:
        await client.encode(scope(0.1), "hi")
    assert late.value.reason is Reason.DEADLINE_EXCEEDED


ONE, OTHER = "127.0.0.1:1", "127.0.0.1:2"
"""Endpoints by which two tokenizers of a lane are listened to; their calls reach one service here."""


def pass_time(pulses: Pulses, *speaking: str) -> None:
    """So much that whoever reports is silent now, but for these."""
    for _ in range(SILENT_TICKS):
        for endpoint in speaking:
            pulses.heard(endpoint, "tokenizer")
        pulses.tick()


@pytest.fixture
async def heard():
    """A service that answers once its gate is open, a gateway's view of it, and its two replicas' signs of life."""
    service, pulses = Gated(), Pulses()
    for endpoint in (ONE, OTHER):
        pulses.heard(endpoint, "tokenizer")

    def add(server):
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server)

    async with running(add, "tokenizer") as host:
        channels = Channels(GatewaySettings(), FixedTargets({"tokenizer.small": host.address}))
        yield service, GrpcTokenizer(channels, pulses), pulses
        await channels.close()


async def test_nobody_waits_for_tokenizers_that_are_all_silent(heard):
    """Who waits already is told, who comes is told before anything is sent, and both until one is heard again."""
    service, client, pulses = heard
    lane = small_lane(tokenizers=[ONE, OTHER])
    waiting = asyncio.create_task(client.encode(CallScope("req", "small", lane, "t", 60.0), "hi"))
    await service.asked(1)
    pass_time(pulses)
    for refused in (waiting, client.encode(CallScope("req", "small", lane, "t", 60.0), "hi")):
        with pytest.raises(MeshError, match="no tokenizer of 'small' can be reached") as told:
            await refused
        assert told.value.reason is Reason.UPSTREAM_UNAVAILABLE
        assert told.value.metadata == {"service": "tokenizer", "retry_after_s": "2"}
    assert len(service.requests) == 1
    pulses.heard(OTHER, "tokenizer")
    service.gate.set()
    assert await client.encode(CallScope("req", "small", lane, "t", 60.0), "hi") == [1]


async def test_a_call_that_may_be_at_a_silent_tokenizer_is_made_again(heard):
    """Once, when it falls silent: whoever asks while it is silent is the routes' matter, and is left alone."""
    service, client, pulses = heard
    lane = small_lane(tokenizers=[ONE, OTHER])
    first = asyncio.create_task(client.encode(CallScope("req", "small", lane, "t", 60.0), "hi"))
    await service.asked(1)
    pass_time(pulses, OTHER)
    await service.asked(2)
    second = asyncio.create_task(client.encode(CallScope("req", "small", lane, "t", 60.0), "hi"))
    await service.asked(3)
    pass_time(pulses, OTHER)
    service.gate.set()
    assert await first == await second == [1]
    assert len(service.requests) == 3


async def test_whoever_is_cancelled_stays_cancelled(heard):
    """Also in the very tick in which its tokenizer falls silent."""
    service, client, pulses = heard
    waiting = asyncio.create_task(
        client.encode(CallScope("req", "small", small_lane(tokenizers=[ONE]), "t", 60.0), "hi")
    )
    await service.asked(1)
    pass_time(pulses)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not pulses.is_awaited(ONE)


async def test_the_service_is_told_how_much_fits(asked):
    """One id fewer than the lane's context, so that it can refuse before it encodes."""
    service, client = asked
    service.gate.set()
    assert await client.encode(scope(20.0), "hi") == [1]
    assert await client.prepare_grammar(scope(20.0), Grammar(GrammarKind.REGEX, "a")) == "a"
    assert [request.max_token_count for request in service.requests] == [1023, 1023]


class Vocabulary(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Ids stand for their own decimals; every call is kept."""

    def __init__(self):
        self.requests = []
        self.refusals = []
        """Why the next calls of `Decode` are refused, one each."""
        self.lanes = []
        """Which lanes its calls named."""
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
        self.lanes.append(dict(context.invocation_metadata()).get(LANE_KEY))
        if self.refusals:
            raise MeshError(self.refusals.pop(0), "not here")
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
        yield service, GrpcTokenizer(channels, Pulses())
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
    await asyncio.wait_for(service.decoding.wait(), 60)
    other = asyncio.create_task(client.token_bytes(scope(20.0), [7, 8, 9]))
    service.gate.set()
    assert await other == [b"7", b"8", b"9"]
    assert await waiting == [b"1", b"2", b"3"]


@pytest.mark.parametrize("comes_back", [True, False])
async def test_spellings_wait_for_their_vocabulary(known, monkeypatch, comes_back: bool):
    """Their lane is gone and all that is there knows other ids: both ways are tried until one of them answers."""
    service, client = known
    monkeypatch.setattr(tokenizer, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(tokenizer, "RESTART_PATIENCE_S", 60.0 if comes_back else 0.0)
    service.refusals = [Reason.LANE_GONE, Reason.VOCABULARY_MISMATCH] * (2 if comes_back else 9)
    waiting = client.token_bytes(scope(20.0), [7])
    if comes_back:
        assert await waiting == [b"7"]
        assert service.lanes == ["lane-a", None, "lane-a", None, "lane-a"]
    else:
        with pytest.raises(MeshError, match=r"is gone and none of the answer's vocabulary came") as gone:
            await waiting
        assert gone.value.reason is Reason.UPSTREAM_UNAVAILABLE


async def test_a_lanes_own_tokenizer_of_another_vocabulary_is_not_asked_again(known):
    """Nothing will change there."""
    service, client = known
    service.refusals = [Reason.VOCABULARY_MISMATCH]
    with pytest.raises(MeshError) as refused:
        await client.token_bytes(scope(20.0), [7])
    assert (refused.value.reason, service.lanes) == (Reason.VOCABULARY_MISMATCH, ["lane-a"])


async def test_a_vocabulary_is_measured_once(known):
    """Its digest names it; a tokenizer that has another one is not believed."""
    service, client = known
    assert [await client.vocabulary_size(scope(20.0)) for _ in range(3)] == [100_000] * 3
    assert len(service.requests) == 1
    other = CallScope("req", "small", small_lane(vocabulary_digest="another"), "t", 20.0)
    with pytest.raises(MeshError) as refused:
        await client.vocabulary_size(other)
    assert refused.value.reason is Reason.VOCABULARY_MISMATCH
