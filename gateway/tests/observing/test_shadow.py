"""Shadow scoring: a share of stable's answers is scored on both lanes, and nobody notices."""

import asyncio
import dataclasses
import random
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_gateway.ask import Ask, Sampling
from serin_gateway.catalog import Catalog, MemoryCatalog, Policy, Trial
from serin_gateway.collaborators import Arrival
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import Completed
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.sessions import Sessions
from serin_gateway.observing.shadow import MAX_TOKENS, MAX_WAITING, TENANT_KEY, Answered, ShadowScorer
from serin_gateway.pipeline import Request
from serin_gateway.placement import Placement
from serin_gateway.recall import Recalled
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import MemoryHouse, ScriptedScorers, saying, small_catalog, small_lane
from serin_gateway.upstream.scoring import GrpcScorers
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.worker import TokenLogprob
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running

TRIAL = Trial("lane-a", "lane-b", 1.0, 0.0)
ANSWERED = Answered("small", "lane-a", "acme\0s", [1, 2, 3], [4, 5])


def by_lane(worker, token_id):
    """Lane b finds everything less likely, and another token likeliest for 5."""
    if worker.instance.startswith("lane-a"):
        return TokenLogprob(-0.5, [(token_id, -0.5)])
    return TokenLogprob(-1.0, [(9 if token_id == 5 else token_id, -0.5)])


class Scoring:
    """A scorer with everything around it."""

    def __init__(self, rule=by_lane, *lanes, policy: Policy | None = None) -> None:
        lanes = lanes or (small_lane("lane-a", num_workers=2), small_lane("lane-b"))
        catalog = dataclasses.replace(small_catalog(*lanes), policy=policy or Policy())
        self.buffer = ObservationBuffer()
        self.workers = ScriptedScorers(rule)
        self.placement = Placement()
        self.catalog = MemoryCatalog(catalog)
        self.shadow = ShadowScorer(
            self.catalog, self.placement, self.workers, self.buffer, Sessions(b"s" * 32), random.Random(1)
        )

    async def settled(self, count: int) -> None:
        """Wait until so many texts were dealt with."""
        async with asyncio.timeout(60):
            while self.shadow.outcomes.total() < count:  # noqa: ASYNC110 - nothing announces an outcome
                await asyncio.sleep(0)

    def scores(self) -> list:
        """What was scored."""
        batch = self.buffer.take()
        return list(batch.scores) if batch else []


@asynccontextmanager
async def scoring(*args, **options):
    """A scorer at work."""
    made = Scoring(*args, **options)
    task = asyncio.create_task(made.shadow.keep_scoring())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_answer_on_both_lanes():
    """The same ids, each lane's own worker, mean log-probabilities, agreement on the likeliest token."""
    async with scoring() as made:
        made.shadow.offer(TRIAL, ANSWERED)
        await made.settled(1)
        (score,) = made.scores()
    assert (score.stable_lane, score.canary_lane, score.num_tokens) == ("lane-a", "lane-b", 2)
    assert (score.stable_logprob, score.canary_logprob, score.agreement) == (-0.5, -1.0, 0.5)
    assert score.session == Sessions(b"s" * 32).number("acme\0s")
    (first, one, *ids), (second, two, *same) = made.workers.calls
    assert ids == same == [[1, 2, 3], [4, 5]]
    assert (first.lane.lane, second.lane.lane) == ("lane-a", "lane-b")
    assert one.instance.startswith("lane-a")
    assert two.instance.startswith("lane-b")
    assert first.tenant_key == second.tenant_key == TENANT_KEY


async def test_a_calibration_asks_two_workers_of_stable():
    """Stable against stable, on different machines where there are any."""
    async with scoring() as made:
        made.shadow.offer(Trial("lane-a", "lane-b", 1.0, 1.0), ANSWERED)
        await made.settled(1)
        (score,) = made.scores()
    assert (score.stable_lane, score.canary_lane) == ("lane-a", "lane-a")
    assert {worker.instance for _, worker, *_ in made.workers.calls} == {"lane-a-w0", "lane-a-w1"}


async def test_only_stables_answers_and_only_a_share():
    """An answer of the other lane would favour it; the rates are kept."""
    async with scoring() as made:
        made.shadow.offer(TRIAL, dataclasses.replace(ANSWERED, lane="lane-b"))
        made.shadow.offer(TRIAL, dataclasses.replace(ANSWERED, answer=[]))
        made.shadow.offer(Trial("lane-a", "lane-b", 0.0, 1.0), ANSWERED)
        num_drawn = 0
        for _ in range(400):
            before = made.shadow.outcomes.total()
            made.shadow.offer(Trial("lane-a", "lane-b", 0.25, 0.5), ANSWERED)
            for _ in range(20):
                await asyncio.sleep(0)
            num_drawn += made.shadow.outcomes.total() - before
        scores = made.scores()
    assert 60 < num_drawn < 140
    assert len(scores) == num_drawn
    assert 0.3 < sum(score.canary_lane == "lane-a" for score in scores) / num_drawn < 0.7


async def test_what_does_not_fit_is_dropped_and_counted():
    """A full queue, a long text, lanes that are gone or of another vocabulary, workers that fail or are busy."""
    made = Scoring()
    for _ in range(MAX_WAITING + 3):
        made.shadow.offer(TRIAL, ANSWERED)
    made.shadow.offer(TRIAL, dataclasses.replace(ANSWERED, prompt=[1] * MAX_TOKENS))
    assert (made.shadow.outcomes["full"], made.shadow.outcomes["too_long"]) == (3, 1)

    other = small_lane("lane-b", vocabulary_digest="other")
    failed = MeshError(Reason.NOT_READY, "no")
    endless = TokenLogprob(float("-inf"), [(1, -0.5)])
    for outcome, case in (
        ("gone", Scoring(by_lane, small_lane("lane-a"))),
        ("gone", Scoring(by_lane, small_lane("lane-a"), other)),
        ("failed", Scoring(lambda worker, token_id: failed)),
        ("failed", Scoring(lambda worker, token_id: endless)),
        ("busy", busy := Scoring()),
    ):
        if case is busy:
            lane = busy.catalog.current().find("small").pinned_lane("lane-b")
            stack = busy.placement.running(lane.workers[0], 10, 5)
            stack.__enter__()
        task = asyncio.create_task(case.shadow.keep_scoring())
        case.shadow.offer(TRIAL, ANSWERED)
        await case.settled(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert case.shadow.outcomes == {outcome: 1}
        assert case.scores() == []


async def test_no_request_waits_for_it():
    """Workers that never score: every request is answered, remembered and billed as without it; the rest is dropped.

    What is scored after all asks no memory and keeps nothing in one, and no bill mentions it.
    """
    memory, scored = Remembering(), Scoring()
    scored.workers.hold.clear()
    made = MemoryHouse(saying("hello"), memory=memory, shadow=scored.shadow)
    made.catalog.publish(Catalog([dataclasses.replace(small_catalog().models[0], trial=TRIAL)]))
    key, num_asked = await made.key(tenant="acme"), MAX_WAITING + 5
    task = asyncio.create_task(scored.shadow.keep_scoring())
    async with asyncio.timeout(60):
        for _ in range(num_asked):
            await ask(made, key, temperature=0.0, allow_cached_answer=True)
    assert len(scored.workers.calls) == 1
    assert scored.shadow.outcomes == {"full": num_asked - 1 - MAX_WAITING}
    assert [receipt.reason for receipt in made.journal.receipts] == ["ok"] * num_asked
    before = (memory.num_recalls, len(memory.kept), len(made.limiter.lines))
    assert before == (num_asked,) * 3
    scored.workers.hold.set()
    await scored.settled(num_asked)
    assert scored.shadow.outcomes["scored"] == MAX_WAITING + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (memory.num_recalls, len(memory.kept), len(made.limiter.lines)) == before


class Remembering:
    """A memory that counts what it is asked and given."""

    def __init__(self):
        self.num_recalls, self.kept = 0, []

    async def recall(self, scope, key, *, allow_answer):
        """Nothing."""
        self.num_recalls += 1
        return Recalled()

    async def keep(self, scope, key, answer):
        """Keep it."""
        self.kept.append(answer)


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Notes what it is to score."""

    def __init__(self):
        self.asked: list[worker_pb2.ScoreRequest] = []

    async def Score(self, request, context):  # noqa: N802 - the method's name in the contract
        """The same for every token."""
        self.asked.append(request)
        one = tokens_pb2.TokenLogprob(logprob=-1.0, alternatives=[tokens_pb2.TokenAlternative(token_id=4, logprob=-1)])
        kv_digest = small_lane(dict(context.invocation_metadata())["serin-lane"]).kv_digest
        return worker_pb2.ScoreResponse(logprobs=[one] * len(request.target_token_ids), kv_digest=kv_digest)


async def test_workers_are_asked_at_the_lowest_priority_and_in_nobodys_cache():
    """Behind everything callers want, in nobody's share; the contract has no cache that a score could name."""
    worker = Worker()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(
            running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server), "worker")
        )
        channels = Channels(GatewaySettings(), FixedTargets({"worker.small": host.address}))
        stack.push_async_callback(channels.close)
        made = Scoring()
        shadow = ShadowScorer(
            made.catalog, made.placement, GrpcScorers(channels), made.buffer, Sessions(b"s" * 32), random.Random(1)
        )
        task = asyncio.create_task(shadow.keep_scoring())
        shadow.offer(TRIAL, ANSWERED)
        async with asyncio.timeout(60):
            while not shadow.outcomes.total():  # noqa: ASYNC110 - nothing announces an outcome
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert shadow.outcomes == {"scored": 1}
    assert [(one.priority, one.tenant_key) for one in worker.asked] == [(-100, TENANT_KEY)] * 2
    assert not {"cache_group", "cache_salt", "account"} & set(worker_pb2.ScoreRequest.DESCRIPTOR.fields_by_name)


async def test_operators_can_forbid_it():
    """`gateway.shadow_scoring: false`: nothing is even put in line."""
    async with scoring(policy=Policy(shadow_scoring=False)) as made:
        made.shadow.offer(TRIAL, ANSWERED)
        assert made.shadow._waiting.empty()


async def ask(house: MemoryHouse, key: str, allow_cached_answer: bool = False, **fields) -> None:
    """One request to its end."""
    request = Request(house.collaborators, Arrival("rest", key=key, request_id="req-1", session_id="s"))
    await request.authenticate()
    asked = Ask(
        "small",
        [Conversation([Message("user", ["hi"])])],
        Sampling(**fields),
        allow_cached_answer=allow_cached_answer,
    )
    outbox = await request.begin(asked)
    while not isinstance((await outbox.take())[-1], Completed):
        pass
    await request.settle()


@pytest.fixture
def house() -> MemoryHouse:
    """A house whose model is compared."""
    made = MemoryHouse(saying("hello"))
    made.catalog.publish(Catalog([dataclasses.replace(small_catalog().models[0], trial=TRIAL)]))
    return made


async def test_finished_answers_are_offered(house):
    """Prompt and answer as ids, up to the token that ended it; drawn answers as well as greedy ones."""
    await ask(house, await house.key(tenant="acme"))
    (offered,) = house.shadow.offered
    assert bytes(offered.prompt) == b"user: hi\n"
    assert list(offered.answer) == [*b"hello", 256]
    assert (offered.model, offered.lane, offered.session_key) == ("small", "lane-a", "acme\0s")


async def test_tenants_can_refuse(house):
    """A key with `shadow: false` offers nothing, nor does a model that is not compared, nor a failed request."""
    await ask(house, await house.key(shadow=False))
    assert house.shadow.offered == []
    house.catalog.publish(small_catalog())
    await ask(house, await house.key())
    assert house.shadow.offered == []
