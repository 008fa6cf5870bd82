"""Limits and keys while Redis is killed or hangs: local, conservative, and never waited for."""

import asyncio

import pytest
from serin_gateway.keys import KeyStoreDown, RedisKeyStore, Role, mint_key
from serin_gateway.limits.fallback import FallbackLimiter
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import Amount, Lease, Limits, Scope
from serin_gateway.limits.shared import RedisLimiter
from serin_gateway.rest.headers import limit_headers
from serin_gateway.state import BudgetedKeyStore, StateCalls, StateUnsafe, check_state, open_state
from serin_mesh.breaker import Unavailable
from valkey_process import Valkey

PATIENT_S = 5.0
"""A budget that a busy machine keeps to; a killed Redis is away at once all the same."""
LIMITS = Limits(requests_per_minute=8, concurrent_requests=4)


@pytest.fixture
async def state(tmp_path):
    """A Valkey of its own and a client as the gateway makes it."""
    with Valkey(tmp_path) as server:
        redis = open_state(server.url)
        yield server, redis
        await redis.aclose()


class CountedCalls(StateCalls):
    """Calls of the state Redis, and how many of them were made."""

    num_made = 0

    async def call(self, operation):
        """The operation's result."""

        async def made():
            self.num_made += 1
            return await operation()

        return await super().call(made)


def lease(name: str) -> Lease:
    """One request."""
    return lease_of(name, LIMITS)


def lease_of(name: str, limits: Limits, tokens: int = 0) -> Lease:
    """One request of a key."""
    return Lease(name, [Scope("key", "k", limits)], Amount(tokens))


@pytest.mark.parametrize("harm", ["kill", "hang"])
async def test_limits_become_local_and_conservative(state, harm: str):
    """What was admitted before counts; a share of each limit is granted; nobody waits for Redis."""
    server, redis = state
    calls = CountedCalls("limits")
    limiter = FallbackLimiter(RedisLimiter(redis, calls=calls))
    before = [lease(f"before{n}") for n in range(2)]
    for one in before:
        assert (await limiter.reserve(one)).refused_by is None
        await limiter.settle(one)
    getattr(server, harm)()
    calls.num_made = 0
    answers = []
    for n in range(10):
        one = lease(f"during{n}")
        answers.append((await limiter.reserve(one)).refused_by)
        if answers[-1] is None:
            await limiter.renew(one)
            await limiter.settle(one)
    assert answers == [None, None, *["requests"] * 8]
    # The breaker opens after three calls of 50 ms; of the rest one now and then is made, to see if it is back.
    assert 3 <= calls.num_made <= 6


async def test_who_decides_alone_says_so(state):
    """The limits it applied, that they are its own share, and how often: in the refusal, the headers and a count."""
    server, redis = state
    alone = []
    limiter = FallbackLimiter(RedisLimiter(redis, calls=StateCalls("limits", PATIENT_S)), on_alone=alone.append)
    book, limits = LeaseBook(limiter), Limits(requests_per_minute=4, tokens_per_minute=100)
    _, standing = await book.take([Scope("key", "k", limits)], Amount(10), Amount)
    assert not standing.is_local_share
    assert limit_headers(standing)[0] == (b"x-ratelimit-limit-requests", b"4")
    assert alone == []
    server.kill()
    _, standing = await book.take([Scope("key", "k", limits)], Amount(10), Amount)
    assert standing.is_local_share
    headers = dict(limit_headers(standing))
    assert (headers[b"x-ratelimit-limit-requests"], headers[b"x-ratelimit-scope"]) == (b"2", b"local-share")
    for tokens, words in ((10, "2 requests per minute"), (60, "requests per minute")):
        with pytest.raises(RateLimited, match="this gateway's own share of the key's limit") as refusal:
            await book.take([Scope("key", "k", limits)], Amount(tokens), Amount)
        assert words in refusal.value.message
        assert refusal.value.metadata["limit_scope"] == "local-share"
    with pytest.raises(RateLimited, match=r"own share .* of 50 tokens per minute allows; try again") as refusal:
        await book.take([Scope("key", "other", limits)], Amount(60), Amount)
    assert refusal.value.metadata["retry_after_s"]
    assert refusal.value.never_fits
    assert alone == [True, False, False, False]


async def test_growing_goes_on_locally_too(state):
    """A lease that began in Redis grows within the gateway's own share while Redis is away."""
    server, redis = state
    limiter = FallbackLimiter(RedisLimiter(redis, calls=StateCalls("limits", PATIENT_S)))
    growing = lease_of("growing", Limits(tokens_per_minute=100))
    await limiter.reserve(growing)
    server.kill()
    growing.reserved = Amount(60)
    assert (await limiter.grow(growing)).refused_by == "tokens"
    growing.reserved = Amount(50)
    grown = await limiter.grow(growing)
    assert (grown.refused_by, grown.standing.is_local_share) == (None, True)


async def test_after_an_outage_redis_counts_again(state):
    """What still runs is known there again as soon as it is renewed."""
    server, redis = state
    limiter = FallbackLimiter(RedisLimiter(redis, calls=StateCalls("limits")))
    running = lease("running")
    await limiter.reserve(running)
    server.kill()
    await limiter.renew(running)
    server.start()
    other = RedisLimiter(redis)
    await other.renew(running)
    standing = await other.reserve(lease_of("x", Limits(concurrent_requests=1)))
    assert standing.refused_by == "concurrency"


async def test_a_refusal_of_redis_is_a_refusal(state):
    """The local limiter does not overrule it."""
    _, redis = state
    limiter = FallbackLimiter(RedisLimiter(redis, calls=StateCalls("limits")), share=1.0)
    limits = Limits(concurrent_requests=1)
    await RedisLimiter(redis).reserve(lease_of("elsewhere", limits))
    assert (await limiter.reserve(lease_of("here", limits))).refused_by == "concurrency"


async def test_keys_are_looked_up_within_the_budget(state):
    """A hanging Redis is down, quickly; a record that cannot be read is not "no such key"."""
    server, redis = state
    store = BudgetedKeyStore(RedisKeyStore(redis), StateCalls("keys"))
    _, record = mint_key(b"s" * 32, role=Role.APP)
    await store.create(record)
    assert await store.lookup(record.digest) == record
    await redis.set(f"serin:{{default}}:key:{'1' * 64}", "garbage")
    with pytest.raises(KeyStoreDown):
        await store.lookup("1" * 64)
    assert await store.list() == [record]
    server.hang()
    for _ in range(10):
        with pytest.raises(KeyStoreDown):
            await store.lookup(record.digest)
    server.go_on()


async def test_a_share_of_small_limits_is_at_least_one():
    """Conservative is not closed."""
    assert Limits(1, 0, 3, 0, 5).share(0.5) == Limits(1, 0, 1, 0, 2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("--appendonly", "no", "--maxmemory-policy", "noeviction"), "appendonly"),
        (("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy"),
    ],
)
async def test_a_state_redis_that_forgets_is_refused(tmp_path, settings, named: str):
    """With the setting's name and what is accepted; one that is away is not."""
    with Valkey(tmp_path, *settings) as server:
        redis = open_state(server.url)
        with pytest.raises(StateUnsafe, match=named):
            await check_state(redis)
        server.kill()
        assert not await check_state(redis)
        await redis.aclose()


async def test_a_good_state_redis_is_accepted(state):
    """Append-only and no eviction."""
    _, redis = state
    assert await check_state(redis)


async def test_whether_redis_is_back_is_seen_at_once_or_not_at_all():
    """Who is patient with a Redis that answers is so no longer once it is away: nobody waits to see it come back."""
    calls = StateCalls("limits", PATIENT_S)

    async def broken():
        raise ConnectionError

    async def hanging():
        await asyncio.Event().wait()

    for _ in range(3):
        with pytest.raises(Unavailable):
            await calls.call(broken)
    with pytest.raises(Unavailable, match="not tried"):
        await calls.call(hanging)
    await asyncio.sleep(1.1)
    async with asyncio.timeout(PATIENT_S / 2):
        with pytest.raises(Unavailable, match="TimeoutError"):
            await calls.call(hanging)
