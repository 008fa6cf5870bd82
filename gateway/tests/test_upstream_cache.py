"""The cache over gRPC: what was found, and how it went; a version that fails costs no other version anything.

One that gives an answer which belongs to another request is found out.
"""

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.control.v1 import lane_pb2, registry_pb2
from serin_gateway.ask import Sampling
from serin_gateway.catalog import Catalog, MemoryCatalog
from serin_gateway.events import FinishReason
from serin_gateway.recall import AnswerKey, RecallOutcome, StoredChoice
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.answer_seal import CLOCKS_S, MAX_AGE_S, AnswerSeal, Finding
from serin_gateway.upstream.cache import GrpcMemory
from serin_gateway.upstream.lanes import to_catalog
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.worker import TokenLogprob
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running

KEY = AnswerKey("acme", "", [1, 2, 3], Sampling(temperature=0.0), [])


CHOICE = StoredChoice([7, 8], [TokenLogprob(-0.25, [(7, -0.25)]), TokenLogprob(-0.5, [])], FinishReason.STOP, 8)
AT = 1_800_000_000.0


class Cache(cache_pb2_grpc.CacheServiceServicer):
    """Answers what it is told to, and fails lanes it is told to; notes who asked, and keeps what it is given."""

    def __init__(self):
        self.response = cache_pb2.RecallResponse()
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.grammars: list[str] = []
        self.kept: list[cache_pb2.StoredAnswer] = []

    async def PutAnswer(self, request, context):  # noqa: N802 - as below
        """Keep it."""
        self.kept.append(request.answer)
        return cache_pb2.PutAnswerResponse(stored=True)

    async def Recall(self, request, context):  # noqa: N802 - the method's name in the contract
        """Look."""
        lane = dict(context.invocation_metadata())["serin-lane"]
        self.asked.append(lane)
        self.grammars.append(request.key.grammar.text)
        if lane in self.failing:
            raise MeshError(Reason.INTERNAL, "broken")
        return self.response


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A slow machine is no slow cache."""
    monkeypatch.setattr("serin_gateway.upstream.cache.BUDGET_S", 10.0)


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
        yield cache, GrpcMemory(channels, catalog, AnswerSeal(b"s" * 32))


async def outcome(memory, where, allow_answer=True):
    """How a recall goes."""
    return (await memory.recall(where, KEY, allow_answer=allow_answer)).outcome


async def stored(cache, memory, key, where=None) -> cache_pb2.StoredAnswer:
    """What the cache is given to keep as the answer to a request."""
    await memory.keep(where or scope(), key, [CHOICE] * key.sampling.choice_count)
    return cache.kept[-1]


async def test_how_a_recall_went_is_told():
    """Nothing, a prefix, an answer; and a store that could not say, whatever else was found."""
    holder = cache_pb2.PrefixHolder(endpoint="w:1", cached_token_count=2)
    async with asking() as (cache, memory):
        answer = await stored(cache, memory, KEY)
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


async def test_an_answer_comes_back_as_it_was_given():
    """To every request that the cache may take for the same: a seed that draws nothing, stop ids in another order."""
    greedy = replace(KEY, sampling=Sampling(temperature=0.0, seed=5, stop_token_ids=[3, 1]))
    same = replace(KEY, sampling=Sampling(temperature=0.0, seed=6, stop_token_ids=[1, 3, 3]))
    async with asking() as (cache, memory):
        cache.response = cache_pb2.RecallResponse(answer=await stored(cache, memory, greedy))
        for key in (greedy, same):
            recalled = await memory.recall(scope(), key, allow_answer=True)
            assert (recalled.outcome, recalled.answer) == (RecallOutcome.ANSWER, [CHOICE])


OTHERS = {
    "tenant": {"cache_group": "rival"},
    "salt": {"cache_salt": "x"},
    "prompt": {"prompt": [1, 2, 4]},
    "longer prompt": {"prompt": [1, 2, 3, 3]},
    "length": {"sampling": Sampling(temperature=0.0, max_tokens=9)},
    "seed": {"sampling": Sampling(temperature=1.0, seed=1)},
    "stop string": {"stop_strings": ["x"]},
    "grammar": {"grammar": "start: /a/"},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
async def test_an_answer_to_another_request_is_refused(changes):
    """Quick and well-formed, and somebody else's: the recall has failed, which a rollout of the cache is judged by."""
    async with asking() as (cache, memory):
        theirs = await stored(cache, memory, replace(KEY, **changes))
        holder = cache_pb2.PrefixHolder(endpoint="w:1", cached_token_count=2)
        cache.response = cache_pb2.RecallResponse(answer=theirs, holders=[holder])
        recalled = await memory.recall(scope("canary", "v2"), KEY, allow_answer=True)
        assert (recalled.outcome, recalled.answer) == (RecallOutcome.FAILED, None)
        assert recalled.cached_tokens == {"w:1": 2}


async def test_an_answer_of_other_weights_is_refused():
    """The lane that asks is part of the request."""
    async with asking() as (cache, memory):
        elsewhere = CallScope("req-1", "small", replace(small_lane(), kv_digest="other"), "t", 10.0)
        cache.response = cache_pb2.RecallResponse(answer=await stored(cache, memory, KEY, elsewhere))
        assert await outcome(memory, scope()) is RecallOutcome.FAILED


async def test_a_changed_answer_is_refused():
    """Any part of it, its time too."""
    async with asking() as (cache, memory):
        answer = await stored(cache, memory, KEY)
        for change in ("token_ids", "created_at", "seal"):
            wrong = cache_pb2.StoredAnswer()
            wrong.CopyFrom(answer)
            if change == "token_ids":
                wrong.choices[0].token_ids[0] = 9
            elif change == "created_at":
                wrong.created_at += 1
            else:
                wrong.seal = wrong.seal[:-1]
            cache.response = cache_pb2.RecallResponse(answer=wrong)
            assert await outcome(memory, scope()) is RecallOutcome.FAILED, change


async def test_what_nobody_vouches_for_is_a_miss():
    """An answer without a seal, as older gateways stored it, or with one of a newer kind: nobody's failure."""
    async with asking() as (cache, memory):
        answer = await stored(cache, memory, KEY)
        for seal in (b"", bytes([answer.seal[0] + 1]) + answer.seal[1:]):
            answer.seal = seal
            cache.response = cache_pb2.RecallResponse(answer=answer)
            assert await outcome(memory, scope()) is RecallOutcome.MISSED


def test_what_should_be_gone_is_refused():
    """A cache that forgets to forget is wrong too; clocks that are an hour apart are not."""
    key, answer = cache_pb2.AnswerKey(cache_group="acme"), cache_pb2.StoredAnswer(created_at=AT)
    AnswerSeal(b"s" * 32).seal(key, answer)
    for later_s, finding in (
        (-3600.0, Finding.GENUINE),
        (MAX_AGE_S, Finding.GENUINE),
        (MAX_AGE_S + CLOCKS_S + 1, Finding.FOREIGN),
    ):
        assert AnswerSeal(b"s" * 32, lambda later_s=later_s: AT + later_s).check(key, answer) is finding
    assert AnswerSeal(b"t" * 32, lambda: AT).check(key, answer) is Finding.FOREIGN
