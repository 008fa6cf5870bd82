"""Answers in a real Valkey, also when it is killed and when it hangs."""

import asyncio
from dataclasses import replace

import pytest
from cache_requests import ASKED
from serin_cache_svc.answers import AnswerLimits, Answers
from serin_cache_svc.errors import StoreDown
from serin_cache_svc.store.redis_store import RedisAnswerStore
from serin_mesh.breaker import CircuitBreaker
from worker_twin import SECRET

PATIENCE_S = 20.0
"""Far more than the budgets of 50 ms of a dozen calls, far less than the 5 s each after which the client gives up."""


@pytest.fixture
async def store(valkey):
    """A store on the real thing."""
    store = RedisAnswerStore(valkey.url)
    yield store
    await store.close()


def over(store, budget_s=0.05):
    """Answers with the budget of production, or another one, and a breaker that tries again at once."""
    breaker = CircuitBreaker("cache-redis", failures=(StoreDown,), budget_s=budget_s, rest_s=0.0)
    return Answers(store, breaker, SECRET, AnswerLimits())


async def nobody_can_say(answers, asked=ASKED):
    """Whether a recall ends with the store being down, which callers take for a miss."""
    try:
        await answers.recall(asked)
    except StoreDown:
        return True
    return False


def at_once(call):
    """What a call gives that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    call.close()
    raise AssertionError("it waits")


async def test_values_live_and_die(store):
    """Get, put, expiry and purge of one group."""
    assert await store.get("g", "k") is None
    await store.put("g", "k", b"\x00v", 60)
    await store.put("g", "k2", b"v2", 60)
    await store.put("other", "k", b"theirs", 60)
    assert await store.get("g", "k") == b"\x00v"
    assert 0 < await store._redis.ttl("serin:{g}:answer:k") <= 60
    assert await store.purge("g") == 2
    assert await store.get("g", "k") is None
    assert await store.get("other", "k") == b"theirs"


async def test_purge_of_many(store):
    """More values than one scan finds."""
    async with store._redis.pipeline(transaction=False) as pipe:
        for number in range(2500):
            pipe.set(f"serin:{{g}}:answer:{number}", b"x")
            pipe.set(f"serin:{{h}}:answer:{number}", b"x")
        await pipe.execute()
    assert await store.purge("g") == 2500
    assert await store._redis.dbsize() == 2500


async def test_a_killed_valkey_is_noticed(store, valkey):
    """Killed: noticed at once, whatever the budget. Back: it works again, empty."""
    answers = over(store, budget_s=10 * PATIENCE_S)
    assert await answers.put(ASKED, b"x", 0)
    await valkey.kill()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(10):
            assert await nobody_can_say(answers)
        assert not await answers.put(ASKED, b"x", 0)
        assert not await answers.is_available()
        with pytest.raises(StoreDown):
            await answers.purge("acme")
    await valkey.start()
    assert await answers.recall(ASKED) is None
    assert await answers.put(ASKED, b"y", 0)
    assert await answers.recall(ASKED) == b"y"


async def test_a_hanging_valkey_is_noticed_within_the_budget(store, valkey):
    """Frozen: noticed after the budget, also by many at once. Thawed: no late reply goes to the wrong caller."""
    answers, patient = over(store), over(store, budget_s=10 * PATIENCE_S)
    asked = [replace(ASKED, cache_group=f"group {number}") for number in range(8)]
    for number, one in enumerate(asked):
        assert await patient.put(one, b"answer %d" % number, 0)
    valkey.freeze()
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert all(await asyncio.gather(*(nobody_can_say(answers, one) for one in asked)))
            for one in asked:
                assert await nobody_can_say(answers, one)
            assert not await answers.put(ASKED, b"x", 0)
    finally:
        valkey.thaw()
    await answers.is_available()
    for number, one in enumerate(asked):
        await nobody_can_say(answers, one)
        assert await patient.recall(one) == b"answer %d" % number


async def test_an_open_breaker_does_not_ask(store, valkey):
    """After failures in a row nobody waits at all until the breaker's rest is over."""
    answers = Answers(
        store, CircuitBreaker("cache-redis", failures=(StoreDown,), budget_s=0.05, rest_s=3600), SECRET, AnswerLimits()
    )
    valkey.freeze()
    try:
        for _ in range(3):
            assert await nobody_can_say(answers)
        for _ in range(100):
            assert at_once(nobody_can_say(answers))
    finally:
        valkey.thaw()
