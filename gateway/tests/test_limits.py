"""Limiters: the one in memory and the one in Redis keep the same promises."""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, astuple, replace
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import LEASE_S, Amount, Lease, Limits, Scope
from serin_gateway.limits.memory import MemoryLimiter
from serin_gateway.limits.reservation import Reservation
from serin_gateway.limits.shared import RedisLimiter

LIMIT_CALLER = Path(__file__).with_name("limit_caller.py")


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
    return Lease(name or f"lease-{random.random()}", [Scope("key", subject, limits)], Amount(tokens))


async def test_requests_a_minute(limiter):
    """As many as the limit, then no more; the standing counts down."""
    limits = Limits(requests_per_minute=3)
    answers = [await limiter.reserve(lease(limits)) for _ in range(4)]
    assert [answer.refused_by for answer in answers] == [None, None, None, "requests"]
    assert [answer.standing.remaining_requests for answer in answers] == [2, 1, 0, 0]
    assert 0 < answers[3].retry_after_s <= 61
    assert 0 < answers[3].standing.requests.reset_s <= 61


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
    first.used = Amount(10)
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
    growing.reserved = Amount(71)
    refused = await limiter.grow(growing)
    assert (refused.refused_by, refused.standing.remaining_tokens) == ("tokens", 70)
    assert 0 < refused.retry_after_s <= 61
    for tokens in (40, 70):
        growing.reserved = Amount(tokens)
        grown = await limiter.grow(growing)
        assert (grown.refused_by, grown.standing.remaining_tokens) == (None, 70 - tokens)
    assert grown.standing.remaining_requests == 0
    growing.used = Amount(5)
    await limiter.settle(growing)
    other = lease(Limits(tokens_per_minute=100), 65)
    assert (await limiter.reserve(other)).standing.remaining_tokens == 0


async def test_loose_bounds_hold_a_quarter_of_what_is_left(limiter):
    """Of more nothing is reserved before it is counted, if the least it can need is left."""
    limits = Limits(tokens_per_minute=1000, tokens_per_day=900)

    def loose(bound: int, least: int = 1) -> Lease:
        return replace(lease(limits, bound), least=Amount(least))

    answers = [await limiter.reserve(loose(bound)) for bound in (100, 126, 125, 1)]
    assert [answer.reserved.tokens for answer in answers] == [100, 0, 125, 0]
    assert [answer.standing.remaining_tokens for answer in answers] == [800, 800, 675, 675]
    refused = await limiter.reserve(loose(5000, 676))
    assert (refused.refused_by, refused.reserved) == ("tokens_per_day", Amount())
    assert (await limiter.reserve(loose(5000, 675))).refused_by is None
    assert (await limiter.reserve(lease(limits, 675))).standing.remaining_tokens == 0


async def test_a_bound_that_was_too_much_is_free_with_a_renewal(limiter):
    """No call of its own; a growth that is refused leaves what was reserved, whoever renews it meanwhile."""
    limits = Limits(tokens_per_minute=1000)
    leases = LeaseBook(limiter)
    reservation = Reservation(leases, [Scope("key", "k", limits)], Amount)
    await reservation.open(Amount(240), Amount(2))
    await reservation.cover("a", Amount(30), Amount(120))
    await reservation.cover("b", Amount(40), Amount(120))
    assert (await limiter.reserve(lease(limits))).standing.remaining_tokens == 760
    await leases.renew_all()
    assert (await limiter.reserve(lease(limits))).standing.remaining_tokens == 930
    refusals = await asyncio.gather(
        reservation.cover("b", Amount(971), Amount(120)), leases.renew_all(), return_exceptions=True
    )
    assert isinstance(refusals[0], RateLimited)
    assert (await limiter.reserve(lease(limits))).standing.remaining_tokens == 930
    await reservation.cover("b", Amount(970), Amount(120))
    assert (await limiter.reserve(lease(limits))).standing.remaining_tokens == 0


async def test_a_late_renewal_does_not_take_back_a_growth(gateways):
    """A call that timed out may be carried out after the next one."""
    limits = Limits(tokens_per_minute=100)
    growing = lease(limits, 10)
    await gateways[0].reserve(growing)
    await gateways[0].grow(replace(growing, reserved=Amount(60), revision=1))
    await gateways[0].renew(growing)
    assert (await gateways[1].reserve(lease(limits, 41))).refused_by == "tokens"
    await gateways[0].renew(replace(growing, revision=2))
    assert (await gateways[1].reserve(lease(limits, 90))).refused_by is None


async def test_a_renewal_posts_usage_once(limiter):
    """Used tokens move from reserved to used, however often they are reported."""
    limits = Limits(tokens_per_minute=100)
    running = lease(limits, 50)
    await limiter.reserve(running)
    running.used = Amount(30)
    for _ in range(3):
        await limiter.renew(running)
    assert (await limiter.reserve(lease(limits, 51))).refused_by == "tokens"
    assert (await limiter.reserve(lease(limits, 50, "other"))).refused_by is None
    running.used = Amount(40)
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
    unknown.used = Amount(20)
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
    dead.used = Amount(30)
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


async def test_a_window_says_when_it_is_whole_again():
    """A fresh one: now. Held or used: a window's length from then, however little or much; counted by a fake clock."""
    now, wall = 100.25, 1_000_000_000.0  # 01:46:40 UTC
    limiter = MemoryLimiter(clock=lambda: now, wall=lambda: wall)
    minute, both = Limits(tokens_per_minute=100), Limits(tokens_per_minute=1000, tokens_per_day=100)

    async def told(limits: Limits, tokens: int, subject: str) -> tuple[Lease, int, float]:
        one = lease(limits, tokens, subject=subject)
        window = (await limiter.reserve(one)).standing.tokens
        assert (window.reset_s == 0) == (window.remaining == window.limit)
        return one, window.remaining, window.reset_s

    assert (await told(minute, 0, "k"))[1:] == (100, 0.0)
    half, *standing = await told(minute, 50, "k")
    assert standing == [50, 60.75]  # held: as if it were used now, in the second that began at 100
    half.used = Amount(40)
    await limiter.settle(half)
    now = 130.5
    assert (await told(minute, 0, "k"))[1:] == (60, 30.5)  # the rest was free at once, what was used leaves at 161
    full, *standing = await told(minute, 60, "k")
    assert standing == [0, 60.5]
    full.used = Amount(60)
    await limiter.settle(full)
    now = 161.0
    assert (await told(minute, 0, "k"))[1:] == (40, 30.0)
    now = 191.0
    assert (await told(minute, 0, "k"))[1:] == (100, 0.0)
    assert (await told(both, 0, "d"))[1:] == (100, 0.0)
    assert (await told(both, 10, "d"))[1:] == (90, 80_000.0)  # to midnight


async def test_a_window_that_is_not_whole_says_so(limiter):
    """In memory as in Redis: only where something is missing is anything awaited, and never less than what is held."""
    for limits, longest_s in ((Limits(tokens_per_minute=100), 61), (Limits(tokens_per_day=100), 86_400)):
        subject = str(limits)
        fresh = (await limiter.reserve(lease(limits, 0, subject=subject))).standing.tokens
        assert (fresh.remaining, fresh.reset_s) == (100, 0)
        held = lease(limits, 30, subject=subject)
        standing = (await limiter.reserve(held)).standing.tokens
        assert standing.remaining == 70
        assert 0 < standing.reset_s <= longest_s
        assert longest_s != 61 or standing.reset_s > 60  # what is used now is in the window for a minute
        held.used = Amount(20)
        await limiter.settle(held)
        used = (await limiter.reserve(lease(limits, 0, subject=subject))).standing.tokens
        assert used.remaining == 80
        assert 0 < used.reset_s <= longest_s
        full = (await limiter.reserve(lease(limits, 80, subject=subject))).standing.tokens
        assert full.remaining == 0
        assert 0 < full.reset_s <= longest_s


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


@pytest.fixture(scope="module")
def callers(valkey) -> Iterator[list["subprocess.Popen[str]"]]:
    """Three processes that ask for leases."""
    command = [sys.executable, str(LIMIT_CALLER), valkey.url]
    with contextlib.ExitStack() as running:
        yield [
            running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]


@pytest.mark.parametrize(
    ("limits", "amount", "bound", "admitted"),
    [
        (Limits(requests_per_minute=37), Amount(), Amount(), 37),
        (Limits(tokens_per_minute=1000), Amount(30), Amount(30), 33),
        (Limits(concurrent_requests=11), Amount(), Amount(), 11),
        (Limits(tokens_per_day=1000), Amount(30), Amount(30), 33),
        (Limits(money_per_month=1), Amount(1, 30), Amount(1, 30), 33),
        (Limits(tokens_per_day=1000), Amount(30), Amount(200), 1 + 26),  # one holds its bound, a fifth of all
        (Limits(money_per_month=1), Amount(1, 30), Amount(2, 300), 33),  # three tenths are more than bounds may hold
    ],
)
@pytest.mark.parametrize("kind", ["key", "organization"])
def test_gateways_together_never_overshoot(valkey_url, callers, kind, limits, amount, bound, admitted):
    """200 calls at once from three processes: exactly the limit is admitted, whichever limit and scope.

    Where bytes bound more than is needed, no token too much is reserved, and bounds keep few from being admitted.
    """
    with redis.Redis.from_url(valkey_url) as store:
        store.flushall()
    job = {"kind": kind, "limits": asdict(limits), "amount": astuple(amount), "bound": astuple(bound)}
    for caller, count in zip(callers, (67, 67, 66), strict=True):
        print(json.dumps({**job, "count": count}), file=caller.stdin, flush=True)
        assert caller.stdout.readline() == "ready\n"
    for caller in callers:
        print("go", file=caller.stdin, flush=True)
    answers = [json.loads(caller.stdout.readline()) for caller in callers]
    assert sum(answer["admitted"] for answer in answers) == admitted
    assert sum(answer["refused"] for answer in answers) == 200 - admitted
    assert {scope for answer in answers for scope in answer["scopes"]} == {kind}


async def test_a_dead_gateway_neither_leaks_nor_loses(gateways, valkey_url):
    """Its lease ends by itself; the tokens it had reported stay counted, the rest comes back."""
    limits = Limits(tokens_per_minute=100, concurrent_requests=1)
    dead = lease(limits, 90, "dead")
    await gateways[0].reserve(dead)
    dead.used = Amount(25)
    await gateways[0].renew(dead)
    assert (await gateways[1].reserve(lease(limits, 1))).refused_by == "concurrency"
    async with Redis.from_url(valkey_url) as redis:  # as if LEASE_S had passed
        await redis.zadd("serin:{default}:limit-expiry", {"dead": 1})
    assert (await gateways[1].reserve(lease(limits, 76))).refused_by == "tokens"
    assert (await gateways[1].reserve(lease(limits, 75))).refused_by is None


async def test_a_clock_that_jumps_stays_sane(gateways, valkey_url):
    """After a jump back the future counts as now, and leases end in time; after a jump forward all is free."""
    scope = "serin:{default}:limit:key:k"
    async with Redis.from_url(valkey_url) as redis:
        seconds, _ = await redis.time()
        future = seconds + 3600
        window = {f"r{future}": 5, f"t{future}": 70, "R": 5, "T": 70, "C": future, "L": future, "lr": future}
        await redis.hset(scope, mapping=window)
        await redis.zadd("serin:{default}:limit-expiry", {"ahead": future * 1000})
        limits = Limits(requests_per_minute=6, tokens_per_minute=100)
        answer = await gateways[0].reserve(lease(limits, 30))
        assert answer.refused_by is None
        assert (answer.standing.remaining_requests, answer.standing.remaining_tokens) == (0, 0)
        assert answer.standing.requests.reset_s <= 61
        ends_ms = await redis.zscore("serin:{default}:limit-expiry", "ahead")
        assert ends_ms / 1000 - seconds <= LEASE_S + 2
        await redis.delete(scope)
        past = seconds - 3600
        await redis.hset(scope, mapping={f"r{past}": 50, "R": 50, "C": past, "L": past, "lr": past})
        assert (await gateways[0].reserve(lease(Limits(requests_per_minute=1)))).refused_by is None
        assert not [name for name in await redis.hkeys(scope) if name == f"r{past}".encode()]


async def test_windows_pass_in_redis(gateways, valkey_url):
    """Buckets that have left the window are off its sums, one by one; what is inside stays."""
    scope = "serin:{default}:limit:key:k"
    async with Redis.from_url(valkey_url) as redis:
        seconds, _ = await redis.time()
        old, young = seconds - 61, seconds - 30
        window = {f"t{old}": 60, f"t{young}": 30, "T": 90, "L": old, "C": young, "lt": young}
        await redis.hset(scope, mapping=window)
        limits = Limits(tokens_per_minute=100)
        refused = await gateways[0].reserve(lease(limits, 71))
        assert (refused.refused_by, refused.standing.remaining_tokens) == ("tokens", 70)
        assert 25 < refused.retry_after_s <= 32
        assert (await gateways[0].reserve(lease(limits, 70))).refused_by is None


async def test_what_a_minute_holds_leaves_no_trace_in_redis(gateways, valkey_url):
    """Every key of a window expires; leases that are settled are gone."""
    one = lease(Limits(1, 10, 1), 5)
    await gateways[0].reserve(one)
    await gateways[0].settle(one)
    async with Redis.from_url(valkey_url) as redis:
        for name in await redis.keys("serin:{default}:limit:*"):
            assert 0 < await redis.ttl(name) <= 61
        assert not await redis.hlen("serin:{default}:limit-leases")
        assert not await redis.zcard("serin:{default}:limit-expiry")


SCOPES = ("key", "project", "organization", "model")


@pytest.mark.parametrize("kind", SCOPES)
@pytest.mark.parametrize(
    ("limits", "name", "limit"),
    [
        (Limits(requests_per_minute=2), "requests", 2),
        (Limits(tokens_per_minute=20), "tokens", 20),
        (Limits(concurrent_requests=2), "concurrency", 2),
        (Limits(tokens_per_day=20), "tokens_per_day", 20),
        (Limits(money_per_month=1), "money_per_month", 1000),
    ],
)
async def test_every_limit_holds_at_every_scope(limiter, kind, limits, name, limit):
    """The refusal names the scope, the limit and when to come back; nothing was counted anywhere."""

    def ask(number: int) -> Lease:
        scopes = [Scope(one, "x", limits if one == kind else Limits(requests_per_minute=100)) for one in SCOPES]
        return Lease(f"l{number}", scopes, Amount(10, 500))

    for number in range(2):
        assert (await limiter.reserve(ask(number))).refused_by is None
    refused = await limiter.reserve(ask(2))
    assert (refused.refused_by, refused.scope, refused.limit) == (name, kind, limit)
    assert refused.retry_after_s > 0
    await limiter.settle(ask(0))
    again = await limiter.reserve(ask(3))
    if name == "requests":  # two were made in this minute, however they ended
        assert again.refused_by == name
    else:
        assert again.refused_by is None
        assert again.standing.remaining_requests == (97 if kind != "key" or name != "requests" else 0)


async def test_days_and_months_count_what_was_used(limiter):
    """Beyond the minute; what a scope used counts also where it had no limit then."""
    first = Lease("a", [Scope("key", "k"), Scope("project", "p", Limits(tokens_per_day=100))], Amount(90, 900))
    await limiter.reserve(first)
    first.used = Amount(60, 600)
    await limiter.settle(first)
    day = Limits(tokens_per_day=100, money_per_month=1)
    refused = await limiter.reserve(Lease("b", [Scope("project", "p", day)], Amount(41, 0)))
    assert (refused.refused_by, refused.scope) == ("tokens_per_day", "project")
    assert 0 < refused.retry_after_s <= 86_400
    refused = await limiter.reserve(Lease("c", [Scope("project", "p", day)], Amount(0, 401)))
    assert refused.refused_by == "money_per_month"
    assert 0 < refused.retry_after_s <= 31 * 86_400
    assert (await limiter.reserve(Lease("d", [Scope("project", "p", day)], Amount(40, 400)))).refused_by is None


async def test_the_tightest_limits_are_told(limiter):
    """Of four scopes, the one with the least left, of requests and of tokens."""
    scopes = [
        Scope("key", "k", Limits(requests_per_minute=50, tokens_per_minute=1000)),
        Scope("project", "p", Limits(requests_per_minute=5, tokens_per_minute=2000)),
        Scope("organization", "o", Limits(tokens_per_day=300)),
        Scope("model", "m"),
    ]
    standing = (await limiter.reserve(Lease("a", scopes, Amount(100)))).standing
    assert (standing.requests.limit, standing.requests.remaining, standing.requests.scope) == (5, 4, "project")
    assert (standing.tokens.limit, standing.tokens.remaining, standing.tokens.scope) == (300, 200, "organization")
