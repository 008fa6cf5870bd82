"""The ledger: what a line costs, that it is written once, and who settles for gateways that are gone."""

import contextlib
import dataclasses
import json

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from serin_gateway.ledger.accounts import Account
from serin_gateway.ledger.line import Line, Payer
from serin_gateway.ledger.price import Price, highest
from serin_gateway.ledger.reaper import MAX_TRIES, Reaper
from serin_gateway.ledger.redis_usage import RedisUsage
from serin_gateway.ledger.usage import added_up
from serin_gateway.limits.calendar import day_of
from serin_gateway.limits.leases import new_lease_id
from serin_gateway.limits.limiter import Amount, Lease
from serin_gateway.limits.shared import RedisLimiter
from serin_gateway.metrics import MAX_PROJECTS, OTHER, GatewayMetrics
from serin_gateway.state import StateCalls, open_state
from serin_gateway.testing import small_lane
from serin_mesh.breaker import Unavailable
from valkey_process import Valkey

PAYER = Payer("req-1", "acme", "web", "key_1", "small")
PRICE = Price(150_000, 75_000, 600_000)
LANE = small_lane(version="v2", price=PRICE)


@pytest.fixture
async def redis(valkey_url):
    """An empty store."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


def opened(lease_id: str = "") -> Lease:
    """A lease as a request takes it."""
    return Lease(lease_id or new_lease_id(), PAYER.scopes(), Amount(100, 100_000), facts=PAYER.to_json())


def line(lease: Lease, number: int = 0, **counts: int) -> Line:
    """A line of a lease."""
    return Line(f"{lease.lease_id}.{number}", PAYER, "v2", LANE.lane, price=PRICE, **counts)


async def lines(redis: Redis) -> list[dict]:
    """All lines, oldest first."""
    found = []
    for name in sorted(await redis.keys("serin:{default}:ledger:*")):
        found += [json.loads(fields[b"line"]) for _, fields in await redis.xrange(name)]
    return found


@pytest.mark.parametrize(
    ("counts", "nano"),
    [((0, 0, 0), 0), ((1, 0, 0), 150), ((10, 4, 0), 6 * 150 + 4 * 75), ((0, 0, 7), 4200), ((10, 10, 1), 750 + 600)],
)
def test_cost_is_exact(counts, nano):
    """Cached tokens at their own price, in whole nano-units."""
    assert PRICE.cost(*counts) == nano


def test_what_is_less_than_a_nano_unit_counts_as_one():
    """Rounded once, up; large figures stay integers."""
    assert Price(1, 1, 1).cost(1, 0, 0) == 1
    assert Price(10**12, 0, 10**12).cost(10**6, 0, 10**6) == 2 * 10**15
    assert highest([Price(1, 5, 9), Price(3, 2, 1)]) == Price(5, 5, 9)
    assert highest([]) == Price()


async def test_a_settlement_writes_its_lines_and_sums_at_once(redis):
    """One line for each attempt; the sums by day and the month's money are those of the lines."""
    limiter, lease = RedisLimiter(redis), opened()
    await limiter.reserve(lease)
    made = [line(lease, 0, prompt_tokens=10, cached_tokens=4, completion_tokens=7), line(lease, 1, prompt_tokens=3)]
    lease.used = Amount(20, sum(one.amount.nano for one in made))
    await limiter.settle(lease, [one.billed() for one in made])
    written = await lines(redis)
    assert [one["account"] for one in written] == [f"{lease.lease_id}.0", f"{lease.lease_id}.1"]
    assert (
        written[0] | {"project": "web", "key_id": "key_1", "version": "v2", "nano": made[0].amount.nano} == written[0]
    )
    seconds, _ = await redis.time()
    (row,) = added_up(await RedisUsage(redis).sums([day_of(seconds)]), "organization")
    assert (row.name, row.lines, row.prompt_tokens, row.cached_tokens, row.completion_tokens) == ("acme", 2, 13, 4, 7)
    assert row.nano == lease.used.nano
    assert not await redis.hlen("serin:{default}:limit-leases")


async def test_what_redis_could_not_hear_is_paid_once_and_in_order(tmp_path):
    """Settlements while Redis hangs are owed; the calls that timed out may still arrive: each line is there once."""
    with Valkey(tmp_path) as server:
        redis = open_state(server.url)
        limiter = RedisLimiter(redis, calls=StateCalls("limits"))
        leases = [opened() for _ in range(5)]
        await limiter.reserve(leases[0])
        server.hang()
        for lease in leases:
            with contextlib.suppress(Unavailable):  # said to the first three; then the breaker is open
                await limiter.settle(lease, [line(lease, prompt_tokens=1).billed()])
        assert limiter.num_owed == 5
        server.go_on()
        limiter._calls = StateCalls("limits", 5.0)  # without the breaker that has opened
        await limiter.pay()
        assert limiter.num_owed == 0
        assert [one["account"] for one in await lines(redis)] == [f"{lease.lease_id}.0" for lease in leases]
        await redis.aclose()


class Workers:
    """What workers say; whether all of them did."""

    def __init__(self, *accounts: Account, is_complete: bool = True) -> None:
        self.accounts = accounts
        self.is_complete = is_complete

    async def begun_with(self, model: str, prefix: str):
        """The accounts of one lease."""
        assert model == "small"
        return [one for one in self.accounts if one.name.startswith(prefix)], self.is_complete


async def lapsed(redis: Redis, **used: int) -> Lease:
    """A lease whose gateway died, as if LEASE_S had passed."""
    limiter, lease = RedisLimiter(redis), opened()
    await limiter.reserve(lease)
    lease.used = Amount(**used)
    await limiter.renew(lease)
    await redis.zadd("serin:{default}:limit-expiry", {lease.lease_id: 1})
    return lease


async def test_the_workers_count_settles_for_a_dead_gateway(redis):
    """Of each choice what the furthest worker sent; the gateway, if it only slept, adds nothing."""
    lease = await lapsed(redis, tokens=11, nano=1500)
    name = f"{lease.lease_id}.0"
    workers = Workers(
        Account(name, LANE, 10, 4, {0: 5, 1: 3}),
        Account(name, LANE, 10, 10, {0: 9}),  # went on with the first choice elsewhere
        Account(f"{lease.lease_id}.1", LANE, 10, 0),  # was asked for, and sent nothing
    )
    told = []
    reaper = Reaper(RedisLimiter(redis), workers, lambda *what: told.append(what))
    assert await reaper.reap() == 1
    (written,) = await lines(redis)
    assert (written["prompt_tokens"], written["cached_tokens"], written["completion_tokens"]) == (10, 4, 12)
    assert (written["counted_by"], written["nano"]) == ("worker", PRICE.cost(10, 4, 12))
    assert told == [(1, "worker")]
    spent = await redis.hgetall(f"serin:{{default}}:spent:{written_month(await redis.time())}")
    assert int(spent[b"project:web:m"]) == written["nano"]
    late = RedisLimiter(redis)
    await late.renew(lease)
    await late.settle(lease, [line(lease, prompt_tokens=10).billed()])
    assert len(await lines(redis)) == 1
    assert await reaper.reap() == 0


def written_month(now: tuple[int, int]) -> str:
    """The month on Redis' clock."""
    return day_of(now[0])[:7]


async def test_a_dead_gateways_cascade_is_settled_model_by_model(redis):
    """Every model that may have been asked is, each line is its model's, and no model's limit counts the other's."""
    payer = dataclasses.replace(PAYER, models=("mini", "small"))
    lease = Lease(new_lease_id(), payer.scopes(), Amount(100, 100_000), facts=payer.to_json())
    limiter = RedisLimiter(redis)
    await limiter.reserve(lease)
    await redis.zadd("serin:{default}:limit-expiry", {lease.lease_id: 1})
    of_models = {
        "mini": Workers(Account(f"{lease.lease_id}.0", LANE, 10, 0, {0: 5})),
        "small": Workers(Account(f"{lease.lease_id}.1", LANE, 12, 0, {0: 7})),
    }

    class All:
        async def begun_with(self, model, prefix):
            return await of_models[model].begun_with("small", prefix)

    assert await Reaper(limiter, All()).reap() == 1
    assert [(one["model"], one["completion_tokens"]) for one in await lines(redis)] == [("mini", 5), ("small", 7)]
    spent = await redis.hgetall(f"serin:{{default}}:spent:{written_month(await redis.time())}")
    assert not [name for name in spent if name.startswith(b"model:")]
    assert Payer.from_json(payer.to_json()) == payer
    older = json.loads(PAYER.to_json())
    del older["models"]
    assert Payer.from_json(json.dumps(older)) == PAYER


async def test_where_nobody_knows_the_last_renewal_counts(redis):
    """Workers that are gone had told the gateway; where nothing had been used there is no line."""
    await lapsed(redis, tokens=11, nano=1500)
    await lapsed(redis)
    assert await Reaper(RedisLimiter(redis), Workers()).reap() == 2
    (written,) = await lines(redis)
    assert (written["completion_tokens"], written["nano"], written["counted_by"]) == (11, 1500, "renewal")


async def test_a_worker_that_does_not_answer_is_asked_again(redis):
    """And a stream that still runs is waited for; in the end what is known counts."""
    lease = await lapsed(redis)
    workers = Workers(Account(f"{lease.lease_id}.0", LANE, 10, 0, {0: 5}), is_complete=False)
    reaper = Reaper(RedisLimiter(redis), workers)
    for number in range(1, MAX_TRIES + 1):
        assert await reaper.reap() == (number == MAX_TRIES)
        assert await reaper.reap() == 0  # it is looked into: nobody else takes it meanwhile
        await redis.zadd("serin:{default}:limit-lapsed", {lease.lease_id: 1}, xx=True)
    assert len(await lines(redis)) == 1


async def test_two_gateways_do_not_settle_the_same(redis):
    """Whoever claims first has it for a while; a second settlement changes nothing."""
    lease = await lapsed(redis)
    workers = Workers(Account(f"{lease.lease_id}.0", LANE, 10, 0, {0: 5}))
    reapers = [Reaper(RedisLimiter(redis), workers) for _ in range(3)]
    assert sorted([await reaper.reap() for reaper in reapers]) == [0, 0, 1]
    assert len(await lines(redis)) == 1


def test_no_caller_makes_a_series():
    """Declared projects have series of their own, so many at most; all others share one."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.projects = lambda project: project.startswith("declared")
    labels = {metrics._label(f"{kind}-{n}") for n in range(MAX_PROJECTS + 50) for kind in ("declared", "invented")}
    assert len(labels) == MAX_PROJECTS + 1
    assert OTHER in labels
