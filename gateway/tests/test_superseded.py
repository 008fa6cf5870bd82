"""An answer that was begun anew after its gateway's death is billed once, whoever settles the dead one and whenever."""

import asyncio
import json
import random
from collections import Counter

import pytest
from redis.asyncio import Redis
from serin_gateway.idempotency import IdempotencyDesk, RedisAnswers
from serin_gateway.idempotency.store import State
from serin_gateway.ledger.accounts import Account
from serin_gateway.ledger.line import Line, Payer
from serin_gateway.ledger.price import Price
from serin_gateway.ledger.reaper import Reaper
from serin_gateway.ledger.redis_usage import RedisUsage
from serin_gateway.ledger.usage import added_up, decimal
from serin_gateway.limits.calendar import day_of
from serin_gateway.limits.leases import LeaseBook
from serin_gateway.limits.limiter import Amount, Lease
from serin_gateway.limits.shared import RedisLimiter
from serin_gateway.testing import MemoryHouse, saying, small_catalog, small_lane

PRICE = Price(150_000, 75_000, 600_000)
LANE = small_lane(version="v2", price=PRICE)
P = "serin:{default}:"


@pytest.fixture
async def redis(valkey_url):
    """An empty store."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


class Ledger:
    """All of it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def lines(self) -> list[dict]:
        """Oldest first."""
        found = []
        for name in sorted(await self.redis.keys(f"{P}ledger:*")):
            found += [json.loads(fields[b"line"]) for _, fields in await self.redis.xrange(name)]
        return found

    async def billed(self) -> Counter:
        """Nano-units by lease."""
        billed: Counter = Counter()
        for line in await self.lines():
            billed[line["account"].partition(".")[0]] += line["nano"]
        return billed

    async def check_sums(self) -> None:
        """Sums by day, and what the month's and the day's limits count, are those of the lines that are billed."""
        lines = await self.lines()
        seconds, _ = await self.redis.time()
        day = day_of(seconds)
        rows = added_up(await RedisUsage(self.redis).sums([day]), "organization")
        assert sum(row.nano for row in rows) == sum(line["nano"] for line in lines)
        assert sum(row.lines for row in rows) == len(lines)
        assert sum(row.completion_tokens for row in rows) == sum(line["completion_tokens"] for line in lines)
        spent = await self.redis.hgetall(f"{P}spent:{day[:7]}")
        for kind in ("key", "project", "organization", "model"):
            of_kind = [(name, int(value)) for name, value in spent.items() if name.startswith(f"{kind}:".encode())]
            assert sum(value for name, value in of_kind if name.endswith(b":m")) == sum(line["nano"] for line in lines)
            free = {line["account"] for line in lines if line.get("superseded")}
            tokens = sum(
                line["prompt_tokens"] + line["completion_tokens"] for line in lines if line["account"] not in free
            )
            assert sum(value for name, value in of_kind if not name.endswith(b":m")) == tokens


class Workers:
    """What workers say that they have sent, by lease."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}

    async def begun_with(self, model: str, prefix: str):
        """The accounts of one lease."""
        return [Account(f"{prefix}.0", LANE, 10, 4, {0: self.sent[prefix]})] if self.sent.get(prefix) else [], True


class Gateway:
    """One life of a gateway that makes one answer."""

    def __init__(self, redis: Redis, name: str, owner: str, request: str, workers: Workers, sent: int) -> None:
        self.limiter, self.answers = RedisLimiter(redis), RedisAnswers(redis)
        self.name, self.owner = name, owner
        self.payer = Payer(request, "acme", "web", "key_1", "small")
        self.lease = Lease(owner, self.payer.scopes(), Amount(1000, 10**9), facts=self.payer.to_json())
        self.workers, self.sent = workers, sent

    async def claim(self) -> bool:
        """Whether the answer is for this one to make."""
        return (await self.answers.claim(self.name, "f", self.owner)).state is State.MINE

    async def reserve(self) -> None:
        """Write the lease ahead."""
        await self.limiter.reserve(self.lease)

    async def stream(self) -> None:
        """A worker sends, and half of it is posted."""
        self.workers.sent[self.owner] = self.sent
        self.lease.used = Line(self.owner, self.payer, "v2", "", 10, 4, self.sent // 2, PRICE).amount
        await self.limiter.renew(self.lease)
        await self.answers.renew(self.name, self.owner, [b"some"], 0)

    async def settle(self) -> None:
        """Write the line."""
        line = Line(f"{self.owner}.0", self.payer, "v2", "", 10, 4, self.sent, PRICE)
        self.lease.used = line.amount
        await self.limiter.settle(self.lease, [line.billed(is_repeatable=True)])

    async def finish(self) -> None:
        """The answer is kept."""
        await self.answers.renew(self.name, self.owner, [b"all"], 0)
        await self.answers.finish(self.name, self.owner, State.KEPT)


async def test_deaths_takeovers_and_settlements_in_any_order_bill_once(redis):
    """Each gateway dies somewhere on its way, or is only held up; another takes over before or after the settlement."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    workers, ledger, survivors = Workers(), Ledger(redis), {}
    reaper = Reaper(RedisLimiter(redis), workers)

    async def lapse(lease: str) -> None:
        await redis.zadd(f"{P}limit-expiry", {lease: 1}, xx=True)  # as if LEASE_S had passed
        if rng.random() < 0.7:
            await reaper.reap()

    for number in range(60):
        name, late = f"answer-{number}", []
        for life in range(rng.randrange(1, 4)):
            gateway = Gateway(redis, name, f"{number:04}{life:028}", f"r-{number}", workers, rng.randrange(1, 99))
            if not await gateway.claim():
                break
            survivors[name] = gateway
            steps = [gateway.reserve, gateway.stream, gateway.settle, gateway.finish]
            dies_at = rng.randrange(len(steps) + 1)
            for step in steps[:dies_at]:
                await step()
            if dies_at == len(steps):
                continue
            is_held_up = dies_at > 0 and rng.random() < 0.3
            has_sent = gateway.owner in workers.sent  # of what is sent behind a settlement for the dead nobody knows
            if rng.random() < 0.5 and (has_sent or not is_held_up):
                await lapse(gateway.owner)
            await redis.delete(f"{P}answer:{name}", f"{P}answer:{name}:frames")  # as if CLAIM_S had passed
            if is_held_up:
                late.append((gateway, steps[dies_at:]))
            elif rng.random() < 0.5:
                await lapse(gateway.owner)
        gateway = Gateway(redis, name, f"{number:04}{9:028}", f"r-{number}", workers, rng.randrange(1, 99))
        if await gateway.claim():
            survivors[name] = gateway
            work = [(gateway, [gateway.reserve, gateway.stream, gateway.settle, gateway.finish]), *late]
        else:
            work = late
        while work:  # those that are late, and the one that took over, in any order
            _, steps = rng.choice(work)
            await steps.pop(0)()
            work = [(other, left) for other, left in work if left]
        for owner in list(workers.sent):
            if rng.random() < 0.1:
                await lapse(owner)
    for _ in range(20):
        left = await redis.hkeys(f"{P}limit-leases")
        if not left:
            break
        await redis.zadd(f"{P}limit-expiry", dict.fromkeys(left, 1), xx=True)
        await redis.zadd(f"{P}limit-lapsed", dict.fromkeys(left, 1), xx=True)  # as if those who looked had died
        await reaper.reap()
    await reaper.reap()

    cost = {one.owner: PRICE.cost(10, 4, one.sent) for one in survivors.values()}
    billed = await ledger.billed()
    assert {lease: nano for lease, nano in billed.items() if nano} == cost, f"seed {seed}"
    made = {line["account"].partition(".")[0] for line in await ledger.lines() if line["completion_tokens"]}
    assert made >= set(workers.sent), f"seed {seed}: what was made and not billed is to be seen too"
    await ledger.check_sums()
    assert await redis.keys(f"{P}limit-credit:*") == [], f"seed {seed}"
    assert not await redis.hlen(f"{P}limit-leases")


async def test_an_orphan_that_nobody_asks_for_again_is_billed(redis):
    """By the worker's account, as without a key."""
    workers, ledger = Workers(), Ledger(redis)
    gateway = Gateway(redis, "n", "a" * 32, "r", workers, 40)
    assert await gateway.claim()
    await gateway.reserve()
    await gateway.stream()
    await redis.zadd(f"{P}limit-expiry", {gateway.owner: 1})
    await Reaper(RedisLimiter(redis), workers).reap()
    (line,) = await ledger.lines()
    assert (line["nano"], line["completion_tokens"], "superseded" in line) == (PRICE.cost(10, 4, 40), 40, False)
    await ledger.check_sums()


async def test_what_was_settled_is_taken_back_in_sight(redis):
    """The line stays; another one takes its cost back, and says of which account."""
    workers, ledger = Workers(), Ledger(redis)
    reaper = Reaper(RedisLimiter(redis), workers)
    first, second = (Gateway(redis, "n", letter * 32, "r", workers, 40) for letter in "ab")
    assert await first.claim()
    await first.reserve()
    await first.stream()
    await redis.zadd(f"{P}limit-expiry", {first.owner: 1})
    await reaper.reap()
    await redis.delete(f"{P}answer:n")
    assert await second.claim()
    assert len(await ledger.lines()) == 1
    await reaper.reap()
    billed, taken_back = await ledger.lines()
    assert taken_back["account"] == billed["account"]
    assert (taken_back["nano"], taken_back["completion_tokens"], taken_back["superseded"]) == (-billed["nano"], 0, True)
    await reaper.reap()
    assert len(await ledger.lines()) == 2
    await ledger.check_sums()


async def test_a_failed_answer_is_billed_as_before(redis):
    """It was said to have failed: whoever asks again pays for the new one, and for what the first one used."""
    workers, ledger = Workers(), Ledger(redis)
    for letter in "ab":
        gateway = Gateway(redis, "n", letter * 32, "r", workers, 7)
        assert await gateway.claim()
        await gateway.reserve()
        await gateway.settle()
        await gateway.answers.finish("n", gateway.owner, State.GONE)
    await Reaper(RedisLimiter(redis), workers).reap()
    assert await ledger.billed() == {letter * 32: PRICE.cost(10, 4, 7) for letter in "ab"}
    await ledger.check_sums()


async def test_what_nobody_has_seen_is_billed_until_it_is_made_anew(redis):
    """Said to have failed before anything was sent: however often, whenever settled, only the last one counts."""
    ledger, gateways = Ledger(redis), [Gateway(redis, "n", letter * 32, "r", Workers(), 7) for letter in "abcd"]
    for gateway in gateways[:3]:
        assert await gateway.claim()
        await gateway.reserve()
        if gateway.owner[0] != "b":  # that one's settlement comes late
            await gateway.settle()
        await gateway.answers.finish("n", gateway.owner, State.UNSEEN)
    await Reaper(RedisLimiter(redis), Workers()).reap()
    cost = PRICE.cost(10, 4, 7)
    assert +await ledger.billed() == {"c" * 32: cost}, "nobody has asked again yet"
    await gateways[1].settle()
    assert await gateways[3].claim()
    for step in (gateways[3].reserve, gateways[3].settle, gateways[3].finish):
        await step()
    await Reaper(RedisLimiter(redis), Workers()).reap()
    assert +await ledger.billed() == {"d" * 32: cost}
    await ledger.check_sums()
    assert await redis.keys(f"{P}limit-credit:*") == []


def test_a_sum_below_zero_is_a_decimal_too():
    """What was taken back on a later day."""
    assert [decimal(nano) for nano in (-1, -1_500_000_000, 0, 1)] == [
        "-0.000000001",
        "-1.500000000",
        "0.000000000",
        "0.000000001",
    ]


def said(response) -> str:
    """The text of a chat's answer, whole or streamed."""
    if response.headers["content-type"] == "application/json":
        return response.json()["choices"][0]["message"]["content"]
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


@pytest.mark.parametrize("stream", [False, True])
async def test_two_gateways_bill_a_repeat_once(redis, fronts_on, stream):
    """Over REST: the first one is held up with the answer on its way, the second makes it anew, the first goes on."""
    ledger = Ledger(redis)
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    limiters = [RedisLimiter(redis), RedisLimiter(redis)]
    held_up, other = (
        MemoryHouse(saying(text), leases=LeaseBook(limiter), idempotency=IdempotencyDesk(RedisAnswers(redis)))
        for text, limiter in zip(("first one", "second"), limiters, strict=True)
    )
    key, record = await held_up.key_and_record()
    await other.keys.create(record)
    async with fronts_on(held_up) as one, fronts_on(other) as two:
        headers = {"idempotency-key": "order-1", "authorization": f"Bearer {key}"}
        held_up.workers.hold.clear()
        first = asyncio.create_task(one.http.post("/v1/chat/completions", json=body, headers=headers))
        await held_up.workers.until_running(1)
        (maker,) = await redis.keys(f"{P}answer:*:maker")
        leases_there = await redis.hkeys(f"{P}limit-leases")
        assert leases_there == [await redis.get(maker)], "the claim names the lease"
        await redis.delete(maker.removesuffix(b":maker"))  # as if CLAIM_S had passed
        answer = await two.http.post("/v1/chat/completions", json=body, headers=headers)
        assert said(answer) == "second"
        held_up.workers.hold.set()
        assert said(await first) == "first one"
        for house, limiter in zip((held_up, other), limiters, strict=True):
            house.collaborators.idempotency.begin_drain(5.0)
            await house.collaborators.idempotency.drain()
            await limiter.pay()
    await Reaper(limiters[1], Workers()).reap()
    lines = await ledger.lines()
    superseded = {line["account"].partition(".")[0]: line.get("superseded", False) for line in lines}
    assert len(lines) == 2
    assert superseded.pop(leases_there[0].decode())
    assert list(superseded.values()) == [False]
    assert all(line["completion_tokens"] for line in lines)
    assert await redis.keys(f"{P}limit-credit:*") == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_came_too_late_is_paid_once(redis, fronts_on, stream):
    """504 of a whole answer, nothing of it sent: its repeat is billed instead. What was streamed is billed too."""
    ledger, limiter = Ledger(redis), RedisLimiter(redis)

    def script(worker, order):
        yield from saying("answer")(worker, order)[:4]
        if len(house.workers.orders) == 1:
            house.workers.hold.clear()
        yield from saying("answer")(worker, order)[4:]

    house = MemoryHouse(script, leases=LeaseBook(limiter), idempotency=IdempotencyDesk(RedisAnswers(redis)))
    house.catalog.publish(small_catalog(LANE))
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    async with fronts_on(house) as front:

        async def ask(key: str, **headers: str):
            return await front.http.post("/v1/chat/completions", json=body, headers={"idempotency-key": key} | headers)

        late = await ask("order-1", **{"x-request-timeout": "0.3"})
        assert "DEADLINE_EXCEEDED" in late.text
        assert late.status_code == (200 if stream else 504)
        house.workers.hold.set()
        assert said(await ask("order-1")) == said(await ask("order-1")) == "answer"
        await limiter.pay()
        await Reaper(limiter, Workers()).reap()
        lines = await ledger.lines()
        assert len({line["account"] for line in lines if line["completion_tokens"]}) == len(house.workers.orders) == 2
        assert sum(line.get("superseded", False) for line in lines) == (0 if stream else 1)
        assert len(+await ledger.billed()) == (2 if stream else 1)
        await ledger.check_sums()
        wrong = await front.http.post(
            "/v1/chat/completions", json=body | {"top_p": 9}, headers={"idempotency-key": "order-2"}
        )
        assert wrong.status_code == 400
        house.collaborators.idempotency.begin_drain(5.0)
        await house.collaborators.idempotency.drain()
        assert await redis.keys(f"{P}answer:*:maker") == [], "what cost nothing leaves nothing behind"
