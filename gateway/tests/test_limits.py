"""Limiters: the one in memory and the one in Redis keep the same promises."""

import asyncio
import random

import pytest
from redis.asyncio import Redis
from serin_gateway.limits.limiter import LEASE_S, Lease, Limits
from serin_gateway.limits.memory import MemoryLimiter
from serin_gateway.limits.shared import RedisLimiter


@pytest.fixture(params=["memory", "redis"])
async def limiter(request, valkey_url):
    """Both, empty."""
    if request.param == "memory":
        yield MemoryLimiter()
        return
    async with Redis.from_url(valkey_url) as redis:
        await redis.flushall()
        yield RedisLimiter(redis)


def lease(limits: Limits, tokens: int = 0, name: str | None = None, subject: str = "k") -> Lease:
    """A lease of a name of its own."""
    return Lease(name or f"lease-{random.random()}", subject, limits, tokens)


async def test_requests_a_minute(limiter):
    """As many as the limit, then no more; the standing counts down."""
    limits = Limits(requests_per_minute=3)
    answers = [await limiter.reserve(lease(limits)) for _ in range(4)]
    assert [answer.refused_by for answer in answers] == [None, None, None, "requests"]
    assert [answer.standing.remaining_requests for answer in answers] == [2, 1, 0, 0]
    assert 0 < answers[3].retry_after_s <= 61
    assert 0 < answers[3].standing.reset_requests_s <= 61


async def test_a_refused_request_counts_nothing(limiter):
    """Neither a request nor a token."""
    limits = Limits(requests_per_minute=2, tokens_per_minute=10)
    assert (await limiter.reserve(lease(limits, 11))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 10))).refused_by is None
    assert (await limiter.reserve(lease(limits, 1))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 0))).standing.remaining_requests == 0


async def test_tokens_are_reserved_and_the_rest_released(limiter):
    """What could be used is taken at once; what was not used comes back."""
    limits = Limits(tokens_per_minute=100)
    first = lease(limits, 80)
    assert (await limiter.reserve(first)).standing.remaining_tokens == 20
    assert (await limiter.reserve(lease(limits, 30))).refused_by == "tokens"
    first.used_tokens = 10
    await limiter.settle(first)
    second = await limiter.reserve(lease(limits, 90))
    assert second.refused_by is None
    assert second.standing.remaining_tokens == 0


async def test_a_lease_grows_by_all_or_by_nothing(limiter):
    """What others hold counts, what it holds itself does not; no request is counted again."""
    limits = Limits(requests_per_minute=2, tokens_per_minute=100)
    growing = lease(limits)
    assert (await limiter.reserve(growing)).standing.remaining_tokens == 100
    assert (await limiter.reserve(lease(limits, 30))).refused_by is None
    growing.reserved_tokens = 71
    refused = await limiter.grow(growing)
    assert (refused.refused_by, refused.standing.remaining_tokens) == ("tokens", 70)
    assert 0 < refused.retry_after_s <= 61
    for growing.reserved_tokens in (40, 70):
        grown = await limiter.grow(growing)
        assert (grown.refused_by, grown.standing.remaining_tokens) == (None, 70 - growing.reserved_tokens)
    assert grown.standing.remaining_requests == 0
    growing.used_tokens = 5
    await limiter.settle(growing)
    other = lease(Limits(tokens_per_minute=100), 65)
    assert (await limiter.reserve(other)).standing.remaining_tokens == 0


async def test_a_renewal_posts_usage_once(limiter):
    """Used tokens move from reserved to used, however often they are reported."""
    limits = Limits(tokens_per_minute=100)
    running = lease(limits, 50)
    await limiter.reserve(running)
    running.used_tokens = 30
    for _ in range(3):
        await limiter.renew(running)
    assert (await limiter.reserve(lease(limits, 51))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 50, "other"))).refused_by is None
    running.used_tokens = 40
    await limiter.settle(running)
    assert (await limiter.reserve(lease(limits, 11))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 10))).refused_by is None


async def test_requests_at_the_same_time(limiter):
    """A slot is free again when its request ends."""
    limits = Limits(concurrent_requests=2)
    leases = [lease(limits) for _ in range(3)]
    assert [(await limiter.reserve(one)).refused_by for one in leases] == [None, None, "concurrency"]
    await limiter.settle(leases[0])
    assert (await limiter.reserve(leases[2])).refused_by is None


async def test_subjects_do_not_meet(limiter):
    """Each key has its own."""
    limits = Limits(requests_per_minute=1)
    assert (await limiter.reserve(lease(limits, subject="a"))).refused_by is None
    assert (await limiter.reserve(lease(limits, subject="b"))).refused_by is None
    assert (await limiter.reserve(lease(limits, subject="a"))).refused_by == "requests"


async def test_a_lost_lease_begins_again_when_it_is_renewed(limiter):
    """A renewal of a lease that is not known takes its slot: nothing that runs is forgotten."""
    limits = Limits(concurrent_requests=1, tokens_per_minute=100)
    unknown = lease(limits, 60)
    unknown.used_tokens = 20
    await limiter.renew(unknown)
    assert (await limiter.reserve(lease(limits))).refused_by == "concurrency"
    await limiter.settle(unknown)
    assert (await limiter.reserve(lease(limits, 81))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 80))).refused_by is None


async def test_time_frees_everything_in_memory():
    """Windows pass, and leases that nobody renews end with what they had used."""
    now = 100.0
    limiter = MemoryLimiter(clock=lambda: now)
    limits = Limits(requests_per_minute=1, tokens_per_minute=100, concurrent_requests=1)
    dead = lease(limits, 90)
    await limiter.reserve(dead)
    dead.used_tokens = 30
    await limiter.renew(dead)
    now += LEASE_S + 0.1
    assert (await limiter.reserve(lease(limits, 1))).refused_by == "requests"
    unlimited = Limits(tokens_per_minute=100, concurrent_requests=1)
    assert (await limiter.reserve(lease(unlimited, 71))).refused_by == "tokens"
    free = lease(unlimited, 70)
    assert (await limiter.reserve(free)).refused_by is None
    await limiter.settle(free)
    now += 61
    assert (await limiter.reserve(lease(limits, 100))).refused_by is None


async def test_the_window_never_holds_more_than_the_limit():
    """Over random arrivals, no 60 seconds ever see more requests than the limit (seed printed)."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    now = rng.uniform(0, 1000)
    limiter = MemoryLimiter(clock=lambda: now)
    limits = Limits(requests_per_minute=20)
    admitted: list[float] = []
    for _ in range(3000):
        now += rng.expovariate(1.0)
        if (await limiter.reserve(lease(limits))).refused_by is None:
            admitted.append(now)
            assert sum(at > now - 60 for at in admitted[-25:]) <= 20
    assert len(admitted) > 500


@pytest.fixture
async def gateways(valkey_url):
    """Limiters of four gateways on one Redis, each with its own connections."""
    clients = [Redis.from_url(valkey_url) for _ in range(4)]
    await clients[0].flushall()
    yield [RedisLimiter(client) for client in clients]
    for client in clients:
        await client.aclose()


async def test_gateways_together_never_overshoot(gateways):
    """200 calls at once over four gateways: exactly the limit is admitted, of requests, tokens and slots."""
    for limits, tokens, admitted in (
        (Limits(requests_per_minute=37), 0, 37),
        (Limits(tokens_per_minute=1000), 30, 33),
        (Limits(concurrent_requests=11), 0, 11),
    ):
        asks = [gateways[n % 4].reserve(lease(limits, tokens, f"l{n}", subject=f"s{admitted}")) for n in range(200)]
        answers = await asyncio.gather(*asks)
        assert sum(answer.refused_by is None for answer in answers) == admitted


async def test_a_dead_gateway_neither_leaks_nor_loses(gateways, valkey_url):
    """Its lease ends by itself; the tokens it had reported stay counted, the rest comes back."""
    limits = Limits(tokens_per_minute=100, concurrent_requests=1)
    dead = lease(limits, 90, "dead")
    await gateways[0].reserve(dead)
    dead.used_tokens = 25
    await gateways[0].renew(dead)
    assert (await gateways[1].reserve(lease(limits, 1))).refused_by == "concurrency"
    async with Redis.from_url(valkey_url) as redis:  # as if LEASE_S had passed
        await redis.zadd("serin:{default}:limit:k:expiry", {"dead": 1})
    assert (await gateways[1].reserve(lease(limits, 76))).refused_by == "tokens"
    assert (await gateways[1].reserve(lease(limits, 75))).refused_by is None


async def test_a_clock_that_jumps_stays_sane(gateways, valkey_url):
    """After a jump back the future counts as now, and leases end in time; after a jump forward all is free."""
    async with Redis.from_url(valkey_url) as redis:
        seconds, _ = await redis.time()
        await redis.hset("serin:{default}:limit:k:window", mapping={f"r{seconds + 3600}": 5, f"t{seconds + 3600}": 70})
        await redis.zadd("serin:{default}:limit:k:expiry", {"ahead": (seconds + 3600) * 1000})
        limits = Limits(requests_per_minute=6, tokens_per_minute=100)
        answer = await gateways[0].reserve(lease(limits, 30))
        assert answer.refused_by is None
        assert (answer.standing.remaining_requests, answer.standing.remaining_tokens) == (0, 0)
        assert answer.standing.reset_requests_s <= 61
        ends_ms = await redis.zscore("serin:{default}:limit:k:expiry", "ahead")
        assert ends_ms / 1000 - seconds <= LEASE_S + 2
        await redis.delete("serin:{default}:limit:k:window")
        await redis.hset("serin:{default}:limit:k:window", mapping={f"r{seconds - 3600}": 50})
        assert (await gateways[0].reserve(lease(Limits(requests_per_minute=1)))).refused_by is None


async def test_nothing_is_left_in_redis(gateways, valkey_url):
    """Every key of a limit expires."""
    one = lease(Limits(1, 10, 1), 5)
    await gateways[0].reserve(one)
    async with Redis.from_url(valkey_url) as redis:
        for name in await redis.keys("serin:{default}:limit:*"):
            assert 0 < await redis.ttl(name) <= 61
