"""What is observed of finished requests, through the whole pipeline in memory."""

import asyncio

import pytest
from serin_gateway.ask import Ask, Sampling
from serin_gateway.catalog import Catalog, Worker
from serin_gateway.collaborators import Arrival
from serin_gateway.conversation import Conversation, Message
from serin_gateway.events import Completed
from serin_gateway.keys import Role
from serin_gateway.observing.observation import Beginning, Observation
from serin_gateway.pipeline import Request
from serin_gateway.testing import MemoryHouse, saying, small_catalog, small_lane
from serin_gateway.worker import TokensMade, WorkStarted
from serin_mesh.errors import MeshError, Reason

GONE = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")


async def asked(house: MemoryHouse, key: str | None = None, *, inputs: int = 1, **arrival) -> list[Observation]:
    """Ask once; what is observed of it."""
    fields = {"request_id": "req-1", "timeout_s": 20.0, **arrival}
    choices = fields.pop("choices", 1)
    request = Request(house.collaborators, Arrival("rest", key=key or await house.key(Role.OPERATOR), **fields))
    error = None
    try:
        await request.authenticate()
        prompts = [Conversation([Message("user", ["hi"])])] if inputs == 1 else ["hi"] * inputs
        outbox = await request.begin(Ask("small", prompts, Sampling(choice_count=choices)))
        while not isinstance((await outbox.take())[-1], Completed):
            pass
    except MeshError as failed:
        error = failed
    finally:
        await request.settle(error)
    batch = house.observed.take()
    return list(batch.observations) if batch else []


async def test_one_attempt_with_all_its_figures():
    """Lane, worker, load, tokens, times, ends; the answer did not refuse."""
    house = MemoryHouse(saying("hello there"))
    (seen,) = await asked(house, choices=2)
    attempt = seen.attempt
    assert (seen.request_id, seen.model, attempt.lane, attempt.worker) == ("req-1", "small", "lane-a", "lane-a-w0")
    assert attempt.cluster == "worker.small@lane-a"
    assert (attempt.reason, attempt.num_resumes, attempt.worker_load, attempt.refused) == ("ok", 0, 0, False)
    assert (attempt.num_prompt_tokens, attempt.num_cached_tokens) == (len("user: hi\n"), 0)
    assert (attempt.num_answer_tokens, attempt.longest_answer) == (24, 12)
    assert attempt.finish_reasons == {"stop": 2}
    assert 0 < attempt.first_token_s < 20
    assert 0 < attempt.seconds_per_token < 20
    assert seen.finished_at > 1.7e9


async def test_a_refusal_is_noted_and_its_text_is_not_kept():
    """Only whether it was one."""
    house = MemoryHouse(saying("I'm sorry, but I cannot help with that."))
    (seen,) = await asked(house)
    assert seen.attempt.refused is True
    assert "sorry" not in repr(seen)


async def test_sessions_are_numbers():
    """The same session is the same number, another session or another tenant another one."""
    house = MemoryHouse()
    mine, theirs = await house.key(tenant="a"), await house.key(tenant="b")
    numbers = []
    for key, session in ((mine, "s"), (mine, "s"), (mine, "t"), (theirs, "s")):
        (seen,) = await asked(house, key, session_id=session)
        numbers.append(seen.session)
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3
    assert all(0 < number < 2**64 for number in numbers)


async def test_a_lane_that_fails_is_blamed_also_when_another_one_answers():
    """Two attempts, two observations: the first with its reason, on its lane."""
    say = saying("hello")

    def script(worker, order):
        return [GONE] if worker.instance.startswith("lane-a") else say(worker, order)

    house = MemoryHouse(script)
    elsewhere = [Worker("lane-b-w0", "127.0.0.1:9100", "worker.small@lane-b", 8)]
    house.catalog.publish(small_catalog(small_lane("lane-a", 9999), small_lane("lane-b", 1, workers=elsewhere)))
    first, second = await asked(house)
    assert (first.attempt.lane, first.attempt.reason) == ("lane-a", "UPSTREAM_UNAVAILABLE")
    assert (second.attempt.lane, second.attempt.reason) == ("lane-b", "ok")
    assert (first.attempt.first_token_s, first.attempt.refused) == (0.0, None)
    assert first.session == second.session


async def test_going_on_elsewhere_is_counted():
    """A worker that dies in the middle is one resume of one attempt, which began once."""
    say, times = saying("hello there"), [0]

    def script(worker, order):
        times[0] += 1
        return [*say(worker, order)[:4], GONE] if times[0] == 1 else say(worker, order)

    house = MemoryHouse(script)
    house.catalog.publish(small_catalog(small_lane(num_workers=2)))
    request = Request(house.collaborators, Arrival("rest", key=await house.key(), request_id="req-1"))
    await request.authenticate()
    outbox = await request.begin(Ask("small", ["hi"]))
    while not isinstance((await outbox.take())[-1], Completed):
        pass
    await request.settle()
    batch = house.observed.take()
    (seen,) = batch.observations
    assert (seen.attempt.reason, seen.attempt.num_resumes, seen.attempt.num_answer_tokens) == ("ok", 1, 12)
    assert len(batch.begun) == 1


async def test_what_cut_an_attempt_short_is_named():
    """The deadline by its own reason; a client that leaves, and prompts beside one that failed, by CANCELLED."""
    house = MemoryHouse(lambda worker, order: [WorkStarted(worker.instance, 0, 0), TokensMade(0, 0, [65], [])])
    house.workers.hold.clear()
    (late,) = await asked(house, timeout_s=1.0)
    assert late.attempt.reason == "DEADLINE_EXCEEDED"
    request = Request(house.collaborators, Arrival("rest", key=await house.key(), request_id="gone"))
    await request.authenticate()
    await request.begin(Ask("small", [Conversation([Message("user", ["hi"])])]))
    await house.workers.until_running(1)
    begun = house.observed.take()
    await request.settle(asyncio.CancelledError())
    (gone,) = house.observed.take().observations
    assert (gone.attempt.reason, gone.attempt.was_told_of) == ("CANCELLED", True)
    assert (begun.begun, begun.observations) == ([Beginning("small", "lane-a", gone.session)], [])

    refused, say = MeshError(Reason.PARAMETER_INVALID, "no"), saying("x" * 200)
    failing = MemoryHouse(lambda worker, order: [refused] if len(failing.workers.orders) == 1 else say(worker, order))
    failing.workers.hold.clear()
    waiting = asyncio.create_task(asked(failing, inputs=2))
    await failing.workers.until_running(2)
    failing.workers.hold.set()
    assert sorted(one.attempt.reason for one in await waiting) == ["CANCELLED", "PARAMETER_INVALID"]


async def test_requests_that_chose_their_lane_are_not_observed():
    """Nobody drew them a lane; they are remembered all the same. Nor is what never had a lane."""
    house = MemoryHouse()
    assert await asked(house, pinned_lane="lane-a") == []
    house.catalog.publish(Catalog([]))
    assert await asked(house) == []
    await house.keeper.write()
    (kept,) = await house.records.find("req-1")
    assert kept.reason == "MODEL_NOT_FOUND"


async def test_counting_tokens_is_no_attempt():
    """Nothing was asked of a worker."""
    house = MemoryHouse()
    request = Request(house.collaborators, Arrival("grpc", key=await house.key(), request_id="count"))
    await request.authenticate()
    assert await request.count(Ask("small", ["abc"])) == 3
    await request.settle()
    assert house.observed.take() is None


@pytest.mark.parametrize("key", ["sk-serin-wrong", None])
async def test_strangers_leave_no_trace(key):
    """A wrong key is counted and logged, and neither observed nor remembered: anybody could fill the store."""
    house = MemoryHouse()
    request = Request(house.collaborators, Arrival("rest", key=key, request_id="req-1"))
    with pytest.raises(MeshError) as refused:
        await request.authenticate()
    await request.settle(refused.value)
    await house.keeper.write()
    assert await house.records.find("req-1") == []
    assert house.observed.take() is None
