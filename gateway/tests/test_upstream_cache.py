"""The cache over gRPC: what was found, and how it went; a version that fails costs no other version anything."""

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.control.v1 import lane_pb2, registry_pb2
from serin_gateway.ask import Sampling
from serin_gateway.catalog import Catalog, MemoryCatalog
from serin_gateway.recall import AnswerKey, RecallOutcome
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.cache import GrpcMemory
from serin_gateway.upstream.lanes import to_catalog
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running

KEY = AnswerKey("acme", "", [1, 2, 3], Sampling(temperature=0.0), [])


class Cache(cache_pb2_grpc.CacheServiceServicer):
    """Answers what it is told to, and fails lanes it is told to; notes which lanes asked."""

    def __init__(self):
        self.response = cache_pb2.RecallResponse()
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.grammars: list[str] = []

    async def Recall(self, request, context):  # noqa: N802 - the method's name in the contract
        """Look."""
        lane = dict(context.invocation_metadata())["serin-lane"]
        self.asked.append(lane)
        self.grammars.append(request.key.grammar.text)
        if lane in self.failing:
            raise MeshError(Reason.INTERNAL, "broken")
        return self.response


def scope(lane="stable", cache_version=""):
    """A call on a lane."""
    return CallScope("req-1", "small", small_lane(lane=lane, cache_version=cache_version), "t", 10.0)


@asynccontextmanager
async def asking(has_caches=True):
    """A cache and who asks it."""
    cache, catalog = Cache(), MemoryCatalog(Catalog(has_caches=has_caches))
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(
            running(lambda server: cache_pb2_grpc.add_CacheServiceServicer_to_server(cache, server), "cache")
        )
        channels = Channels(GatewaySettings(), FixedTargets({"cache": host.address}))
        stack.push_async_callback(channels.close)
        yield cache, GrpcMemory(channels, catalog)


async def outcome(memory, where, allow_answer=True):
    """How a recall goes."""
    return (await memory.recall(where, KEY, allow_answer=allow_answer)).outcome


async def test_how_a_recall_went_is_told():
    """Nothing, a prefix, an answer; and a store that could not say, whatever else was found."""
    holder = cache_pb2.PrefixHolder(endpoint="w:1", cached_token_count=2)
    answer = cache_pb2.StoredAnswer(choices=[cache_pb2.StoredChoice(token_ids=[7], finish_reason=1)])
    async with asking() as (cache, memory):
        assert await outcome(memory, scope()) is RecallOutcome.MISSED
        cache.response = cache_pb2.RecallResponse(holders=[holder])
        assert await outcome(memory, scope()) is RecallOutcome.PREFIX
        cache.response = cache_pb2.RecallResponse(answer=answer)
        assert await outcome(memory, scope()) is RecallOutcome.ANSWER
        cache.response = cache_pb2.RecallResponse(holders=[holder], store_failed=True)
        recalled = await memory.recall(scope(), KEY, allow_answer=True)
        assert (recalled.outcome, recalled.cached_tokens) == (RecallOutcome.FAILED, {"w:1": 2})


async def test_without_a_cache_nobody_is_asked():
    """That is no failure."""
    async with asking(has_caches=False) as (cache, memory):
        assert await outcome(memory, scope()) is RecallOutcome.SKIPPED
        assert cache.asked == []


async def test_a_version_that_fails_costs_the_others_nothing():
    """Its lane is not asked any more, for a while; the lanes of the other versions are, each by its own name."""
    async with asking() as (cache, memory):
        cache.failing.add("canary")
        for _ in range(5):
            assert await outcome(memory, scope("canary", "v2")) is RecallOutcome.FAILED
            assert await outcome(memory, scope()) is RecallOutcome.MISSED
        assert (cache.asked.count("canary"), cache.asked.count("stable")) == (3, 5)


def test_a_lane_names_the_cache_of_its_own():
    """As the control plane publishes it; most lanes have none."""
    cache = lane_pb2.LaneMember(service=registry_pb2.SERVICE_KIND_CACHE, version="v2", cluster="cache@v2")
    lanes = [lane_pb2.Lane(lane="aa"), lane_pb2.Lane(lane="bb", members=[cache])]
    catalog = to_catalog(lane_pb2.WatchLanesResponse(models=[lane_pb2.Model(name="small", lanes=lanes)]))
    assert [lane.cache_version for lane in catalog.find("small").lanes] == ["", "v2"]


async def test_a_grammar_is_part_of_what_makes_requests_the_same():
    """Under the same prompt, an answer to another grammar is another answer."""
    async with asking() as (cache, memory):
        for grammar in ("", "start: /a/"):
            await memory.recall(scope(), replace(KEY, grammar=grammar), allow_answer=True)
        assert cache.grammars == ["", "start: /a/"]
