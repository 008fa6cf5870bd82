"""More is asked than workers can bear: who waits, in which order, who is refused, and how many go through at once."""

import asyncio
import random
from collections import Counter

import pytest
from serin_gateway.catalog import Catalog, MemoryCatalog, ServedModel
from serin_gateway.overload import Turnstiles
from serin_gateway.overload.limit import HEADROOM, WARY_S, ConcurrencyLimit
from serin_gateway.overload.line import Ticket, WaitingLine
from serin_gateway.overload.turnstile import Entry, Turnstile
from serin_gateway.overload.usual import Usual
from serin_gateway.testing import saying, small_lane
from serin_mesh.errors import MeshError, Reason


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def line_of(*places: tuple[str, int], max_tickets: int = 100) -> WaitingLine[str]:
    """A line that tenants joined in this order, with these priorities."""
    line: WaitingLine[str] = WaitingLine(max_tickets)
    for number, (tenant, priority) in enumerate(places):
        line.join(Ticket(tenant, priority, 1, f"{tenant}{number}"))
    return line


def served(line: WaitingLine[str], count: int = 10**6) -> list[str]:
    """Whom it serves, in order."""
    names = []
    while len(names) < count and (ticket := line.first()) is not None:
        line.remove(ticket, served=True)
        names.append(ticket.holder)
    return names


def test_tenants_take_turns():
    """Whoever queues one request does not wait behind a hundred of somebody else."""
    line = line_of(*[("a", 0)] * 100, ("b", 0), ("c", 0), ("b", 0))
    assert served(line, 6) == ["a0", "b100", "c101", "a1", "b102", "a2"]


def test_priority_comes_first():
    """Higher first, and fairly within each."""
    line = line_of(("a", 0), ("a", 5), ("a", -5), ("a", 5), ("b", 5))
    assert served(line) == ["a1", "b4", "a3", "a0", "a2"]


def test_a_large_request_counts_as_many():
    """A tenant that asks for eight answers at once has had eight turns."""
    line: WaitingLine[str] = WaitingLine(100)
    line.join(Ticket("a", 0, 8, "large"))
    line.join(Ticket("a", 0, 1, "after"))
    for number in range(9):
        line.join(Ticket("b", 0, 1, f"b{number}"))
    names = served(line)
    assert names[:2] == ["large", "b0"]
    assert names.index("after") == 9


def test_whoever_comes_back_gets_no_credit():
    """A tenant that was away for long is not owed the turns that it did not take."""
    line = line_of(*[("a", 0)] * 60)
    served(line, 50)
    for number in range(5):
        line.join(Ticket("b", 0, 1, f"b{number}"))
    assert served(line, 4) in (["b0", "a50", "b1", "a51"], ["a50", "b0", "a51", "b1"])


def test_a_full_line_sheds_the_greediest():
    """Somebody with a few requests gets in; the tenant that fills the line loses its last one, or its new one."""
    line = line_of(*[("a", 0)] * 5, max_tickets=5)
    mine = Ticket("a", 0, 1, "mine")
    assert line.join(mine) is mine
    shed = line.join(Ticket("b", 0, 1, "b"))
    assert shed is not None
    assert shed.holder == "a4"
    assert line.join(Ticket("a", 1, 1, "urgent")) is None, "each priority has a bound of its own"
    assert served(line) == ["urgent", "a0", "b", "a1", "a2", "a3"]


def test_nobody_waits_where_there_is_no_line():
    """A line without places takes nobody, and remembers nobody."""
    line = line_of(("a", 0), ("b", 3), max_tickets=0)
    assert line.first() is None
    assert list(line.sizes()) == []


def test_a_line_forgets_nobody_and_serves_nobody_twice():
    """Random joins, departures and service, against a set."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    line: WaitingLine[int] = WaitingLine(20)
    waiting: dict[int, Ticket[int]] = {}
    for number in range(5000):
        match rng.randrange(4):
            case 0 | 1:
                ticket = Ticket(f"t{rng.randrange(6)}", rng.randrange(-1, 2), rng.randrange(1, 4), number)
                shed = line.join(ticket)
                waiting[number] = ticket
                if shed is not None:
                    del waiting[shed.holder]
            case 2:
                if waiting:
                    gone = waiting.pop(rng.choice(list(waiting)))
                    line.remove(gone)
                    line.remove(gone)
            case _:
                first = line.first()
                assert (first is None) == (not waiting), f"seed {seed}"
                if first is not None:
                    assert first.priority == max(ticket.priority for ticket in waiting.values()), f"seed {seed}"
                    line.remove(first, served=True)
                    assert waiting.pop(first.holder) is first
        assert len(line) == len(waiting), f"seed {seed}"
        assert sum(size for _, size in line.sizes()) == len(waiting)
        assert all(size <= 20 for _, size in line.sizes())
    names = []
    while (first := line.first()) is not None:
        line.remove(first, served=True)
        names.append(first.holder)
    assert sorted(names) == sorted(waiting), f"seed {seed}"


def test_the_limit_follows_the_workers():
    """Unknown workers limit nothing; a growing line before workers shrinks it, a short one lets it grow again."""
    clock = Hand()
    limit = ConcurrencyLimit(clock)
    limit.adapt(0, 5, 5, is_contended=True)
    assert limit.value == float("inf")
    limit.adapt(64, 0, 0, is_contended=False)
    assert limit.value == HEADROOM * 64
    for _ in range(10):
        limit.adapt(64, 40, 80, is_contended=True)
    once = limit.value
    assert once == pytest.approx(0.85 * 80), "again only after what was let through has ended"
    for _ in range(60):
        clock.now += 1
        limit.adapt(64, 40, round(limit.value), is_contended=True)
    assert limit.value == 1, "never shut"
    for _ in range(100):
        limit.adapt(64, 3, 64, is_contended=True)
    assert limit.value == HEADROOM * 64


def test_gateways_come_to_share_evenly():
    """Two gateways before the same workers, one of which begins alone: in the end each lets about half through."""
    clock, places = Hand(), 40
    limits = [ConcurrencyLimit(clock), ConcurrencyLimit(clock)]
    limits[0].adapt(places, 0, 0, is_contended=False)
    limits[1].value = 1.0
    shares = []
    for _ in range(2000):
        clock.now += 0.25
        running = [int(limit.value) for limit in limits]
        waiting = max(0, sum(running) - places)
        for limit, count in zip(limits, running, strict=True):
            limit.adapt(places, waiting, count, is_contended=True)
        shares.append(running[0] / sum(running))
    assert 0.4 < sum(shares[1000:]) / 1000 < 0.6
    assert sum(running) > 0.7 * places


@pytest.fixture
def turnstile():
    """Two at once."""
    one = Turnstile(4, Hand())
    one.limit.value = 2
    return one


async def reason_of(waiting) -> Reason:
    """Why somebody was not let through."""
    with pytest.raises(MeshError) as refused:
        await waiting
    return refused.value.reason


async def entering(turnstile: Turnstile, tenant: str, priority: int = 0, weight: int = 1, timeout_s: float = 60.0):
    """Somebody who waits; has taken its place in the line."""
    task = asyncio.create_task(turnstile.enter(tenant, priority, weight, timeout_s))
    await asyncio.sleep(0)
    return task


async def test_as_many_as_the_limit_says(turnstile):
    """The third waits for the first to leave; nobody overtakes."""
    first = await turnstile.enter("a", 0, 1, 60)
    await turnstile.enter("a", 0, 1, 60)
    third, fourth = await entering(turnstile, "a"), await entering(turnstile, "b")
    assert not third.done()
    turnstile.leave(first)
    await third
    assert not fourth.done()
    turnstile.limit.value = 3
    turnstile.advance()
    await fourth
    assert turnstile.num_running == 3


async def test_what_is_larger_than_the_limit_goes_alone(turnstile):
    """It is not locked out, and nobody overtakes it for ever."""
    first = await turnstile.enter("a", 0, 1, 60)
    large, small = await entering(turnstile, "b", weight=5), await entering(turnstile, "c")
    assert not large.done()
    turnstile.leave(first)
    await large
    assert turnstile.num_running == 5
    assert not small.done()
    turnstile.leave(large.result())
    await small


@pytest.mark.parametrize("weight", [1, 16])
async def test_no_tenant_holds_all_that_may_run(weight):
    """Who has everything running waits; of each other tenant one request goes beyond the limit, while any may."""
    turnstile = Turnstile(10, Hand())
    turnstile.limit.adapt(16, 0, 0, is_contended=False)
    assert (turnstile.limit.value, turnstile.limit.num_spare) == (20, 2)
    hog = [await turnstile.enter("hog", 100, 5, 60) for _ in range(4)]
    more = await entering(turnstile, "hog", priority=100, weight=5)
    b = await turnstile.enter("b", -100, weight, 60)
    assert b == Entry("b", weight, is_spare=True)
    second = await entering(turnstile, "b", weight=weight)
    assert not second.done(), "something of it runs: it waits its turn like any"
    c = await turnstile.enter("c", 0, weight, 60)
    d, e = await entering(turnstile, "d", priority=-1), await entering(turnstile, "e")
    assert not any(entry.done() for entry in (d, e, more)), "none is spare"
    turnstile.leave(c)
    await e
    assert not d.done(), "who may go beyond goes by priority, and does not overtake its like"
    turnstile.leave(b)
    await asyncio.sleep(0)
    assert (second.done(), d.done()) == (True, False)
    for entry in hog:
        turnstile.leave(entry)
    for one in (more, second, d, e):
        turnstile.leave(await one)
    assert turnstile.is_empty
    assert (turnstile.num_running, turnstile._num_spare) == (0, 0)


async def test_one_tenant_alone_has_the_whole_limit():
    """Nothing is kept back of it for those who are not there; a mesh of one place has a spare one, too."""
    turnstile = Turnstile(10, Hand())
    turnstile.limit.adapt(1, 0, 0, is_contended=False)
    only = await turnstile.enter("a", 0, 1, 60)
    second = await entering(turnstile, "a")
    assert not second.done()
    assert (await turnstile.enter("b", 0, 1, 60)).is_spare
    turnstile.leave(only)
    assert not (await second).is_spare


async def test_whoever_leaves_the_line_frees_its_place(turnstile):
    """Cancelled while waiting, or in the very moment of being let through: nothing stays counted."""
    first = await turnstile.enter("a", 0, 2, 60)
    waiting = await entering(turnstile, "a")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len(turnstile.line) == 0
    chosen = await entering(turnstile, "a")
    turnstile.leave(first)
    chosen.cancel()
    await asyncio.gather(chosen, return_exceptions=True)
    assert turnstile.num_running == 0


async def test_whoever_would_be_late_hears_so_at_once(turnstile):
    """From the rate at which answers end; who has time for it waits."""
    await turnstile.enter("a", 0, 2, 60)
    for _ in range(20):  # two a second
        turnstile._clock.now += 0.5
        turnstile.leave(turnstile._let_through("a", 1))
    waits = [await entering(turnstile, f"t{number}") for number in range(4)]
    assert await reason_of(turnstile.enter("late", 1, 4, 1.0)) is Reason.QUEUE_FULL
    just = await entering(turnstile, "just", priority=1, timeout_s=2.0)
    assert not just.done()
    just.cancel()
    await asyncio.gather(just, return_exceptions=True)
    turnstile.leave(turnstile._let_through("a", 1), took_s=9.0, is_whole=True)
    assert await reason_of(turnstile.enter("just", 1, 1, 2.0)) is Reason.QUEUE_FULL, "an answer takes time, too"
    patient = await entering(turnstile, "patient", priority=1, timeout_s=30)
    assert not patient.done()
    for task in (*waits, patient):
        task.cancel()
    await asyncio.gather(*waits, patient, return_exceptions=True)


def test_the_limit_shrinks_while_answers_come_too_late():
    """Faster than for a line before workers, and as often as an answer takes; it grows again step by step."""
    clock = Hand()
    limit = ConcurrencyLimit(clock)
    limit.adapt(16, 0, 0, is_contended=False)
    assert limit.adapt(16, 0, 20, is_contended=True, pressure=1.1, answer_s=4.0)
    assert limit.value == pytest.approx(12)
    assert not limit.adapt(16, 0, 12, is_contended=True, pressure=1.1, answer_s=4.0)
    clock.now += 4
    assert limit.adapt(16, 0, 12, is_contended=True, pressure=1.1, answer_s=4.0)
    assert limit.value == pytest.approx(7.2)
    for pressure in (0.9, None, 0.7, 0.2):  # nearly all of their time; not known yet; less, and it has just shrunk
        limit.adapt(16, 0, 7, is_contended=True, pressure=pressure, answer_s=4.0)
        assert limit.value == pytest.approx(7.2)
    clock.now += 4
    for pressure in (0.9, 0.7, 0.7):  # a twentieth more, once
        limit.adapt(16, 0, 7, is_contended=True, pressure=pressure, answer_s=4.0)
    assert limit.value == pytest.approx(7.2 * 1.05)
    clock.now += WARY_S
    for _ in range(2):
        limit.adapt(16, 0, 7, is_contended=True, pressure=0.7, answer_s=4.0)
    assert limit.value == pytest.approx(7.2 * 1.05 + 2), "by whole places again, at once"


async def at_workers_that_share(
    timeout_s: float, lasts_s: float = 120.0, warm_up_s: float = 30.0
) -> tuple[float, float]:
    """Whole answers a second, and those that broke off: 16 places share 600 tokens a second, an answer takes 192.

    20 at once take 6.4 s each. Callers come three times as often as can be borne, and wait ``timeout_s``.
    """
    clock, rng, places, tick_s = Hand(), random.Random(0), 16, 0.05
    turnstile = Turnstile(1024, clock)
    asking: dict[asyncio.Task, float] = {}
    running: dict[asyncio.Task, float] = {}
    left: dict[asyncio.Task, float] = {}
    due, counts = 0.0, Counter()
    for tick in range(round(lasts_s / tick_s)):
        if tick % 5 == 0:
            turnstile.adapt(places, max(0, len(running) - places))
        clock.now = tick * tick_s
        while due < clock.now:
            due += rng.expovariate(9.4)
            asking[asyncio.create_task(turnstile.enter("a", 0, 1, timeout_s))] = clock.now
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task, asked_at in list(asking.items()):
            if task.done() and task.exception() is None:
                running[task], left[task] = clock.now, 192.0
            elif not task.done() and clock.now - asked_at > timeout_s:
                task.cancel()
            if task.done():
                asking.pop(task)
        for task in list(running)[:places]:  # the others wait before the workers
            left[task] -= 600 * tick_s / min(len(running), places)
        for task, since in list(running.items()):
            is_whole, is_over = left[task] <= 0, clock.now - since > task.result().timeout_s
            if is_whole or is_over:
                turnstile.leave(task.result(), clock.now - running.pop(task), is_whole=is_whole)
                counts[is_whole] += clock.now > warm_up_s
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return counts[True] / (lasts_s - warm_up_s), counts[False] / (lasts_s - warm_up_s)


@pytest.mark.parametrize("timeout_s", [60.0, 6.0, 4.0, 2.0, 1.0])
async def test_few_answers_break_off_however_short_their_time_is(timeout_s):
    """As many are let through as are whole in time: nearly as many answers as can be made at all, 3.1 a second."""
    whole, late = await at_workers_that_share(timeout_s)
    assert whole >= 0.8 * 600 / 192
    assert late <= 0.1 * whole


async def test_who_wants_answers_in_no_time_takes_none_from_others():
    """One tenant's answers are all cut off by its own time: the limit stays for those whose time suffices."""
    clock = Hand()
    turnstile = Turnstile(4, clock)
    turnstile.adapt(16, 0)
    before = turnstile.limit.value
    patient = await turnstile.enter("patient", 0, 1, 60.0)
    for _ in range(40):
        hasty = [turnstile._let_through("hasty", 1, 0.05) for _ in range(5)]
        clock.now += 1
        turnstile.leave(patient, 1.0, is_whole=True)
        patient = await turnstile.enter("patient", 0, 1, 60.0)
        turnstile.adapt(16, 0)
        for entry in hasty:
            turnstile.leave(entry, 0.05)
        turnstile.adapt(16, 0)
    assert turnstile.limit.value == before


async def test_who_would_break_off_is_refused_when_its_turn_comes(turnstile):
    """The line took longer than it seemed: its place goes to somebody whose answer will be whole."""
    refused: list[str] = []
    turnstile._on_refused = refused.append
    turnstile.leave(turnstile._let_through("a", 1), took_s=3.0, is_whole=True)
    running = await turnstile.enter("a", 0, 2, 60)
    hasty, patient = [await entering(turnstile, name, timeout_s=seconds) for name, seconds in (("b", 5), ("c", 30))]
    turnstile._clock.now += 2.5
    turnstile.leave(running)
    assert await reason_of(hasty) is Reason.QUEUE_FULL
    turnstile.leave(await patient)
    assert refused == ["late"]
    assert turnstile.is_empty


def test_what_is_usual():
    """A mean and a deviation; what was cut off counts where it was more than usual, since it would have been."""
    usual = Usual(before=1.0)
    assert (usual.mean, usual.most) == (1.0, 1.0)
    draw = random.Random(0)
    for _ in range(1000):
        usual.note(draw.uniform(1.0, 3.0))
        usual.note_at_least(draw.uniform(0.0, 1.0))
    assert usual.mean == pytest.approx(2.0, abs=0.3)
    assert usual.most == pytest.approx(3.0, abs=0.4), "the mean deviation of a uniform number is a quarter of its span"
    before = usual.mean
    usual.note_at_least(9.0)
    assert usual.mean > before


async def test_forecasts_learn_from_how_long_was_waited(turnstile):
    """Where the line takes twice as long as it seemed, whoever has less time than that is refused at once."""
    running = await turnstile.enter("a", 0, 2, 9999)
    clock = turnstile._clock
    for _ in range(60):
        for _ in range(20):
            clock.now += 0.5
            turnstile.leave(turnstile._let_through("a", 1))
        seemed_s = turnstile._expected_wait_s("b", 0, 2)
        first = await entering(turnstile, "b", weight=2, timeout_s=9999)
        clock.now += 2 * seemed_s
        turnstile.leave(running)
        running = await first
    for _ in range(20):
        clock.now += 0.5
        turnstile.leave(turnstile._let_through("a", 1))
    waiting = await entering(turnstile, "b", timeout_s=600)
    seems_s = turnstile._expected_wait_s("c", 0, 1)
    assert await reason_of(turnstile.enter("c", 0, 1, 1.5 * seems_s)) is Reason.QUEUE_FULL
    with pytest.raises(MeshError):
        turnstile.look("c", 0, 1, 1.5 * seems_s)
    turnstile.look("c", 0, 1, 2.5 * seems_s)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_whose_time_is_over_is_told(turnstile):
    """While waiting: DEADLINE_EXCEEDED, and the place is free."""
    await turnstile.enter("a", 0, 2, 60)
    assert await reason_of(turnstile.enter("b", 0, 1, 0.05)) is Reason.DEADLINE_EXCEEDED
    assert len(turnstile.line) == 0


async def test_a_full_line_refuses(turnstile):
    """The greediest tenant's last request makes room; its caller hears when to come again."""
    await turnstile.enter("a", 0, 2, 60)
    greedy = [await entering(turnstile, "a") for _ in range(4)]
    other = await entering(turnstile, "b")
    assert await reason_of(greedy[3]) is Reason.QUEUE_FULL
    assert await reason_of(turnstile.enter("a", 0, 1, 60)) is Reason.QUEUE_FULL
    for task in (*greedy[:3], other):
        task.cancel()
    await asyncio.gather(*greedy[:3], other, return_exceptions=True)


async def test_who_has_just_left_is_passed_over():
    """Its turn, or its end in a line that is full, comes before it has noticed: nobody else's request fails over it."""
    turnstile = Turnstile(2, Hand())
    turnstile.limit.value = 1
    running = await turnstile.enter("a", 0, 1, 9)
    first, second = (asyncio.create_task(turnstile.enter("b", 0, 1, 9)) for _ in range(2))
    await until_waiting(turnstile, 2)

    async def in_its_place() -> None:
        second.cancel()
        await turnstile.enter("c", 0, 1, 9)

    third = asyncio.create_task(in_its_place())
    await asyncio.gather(second, return_exceptions=True)
    assert len(turnstile.line) == 2
    first.cancel()
    turnstile.leave(running)
    await third
    assert (turnstile.num_running, len(turnstile.line)) == (1, 0)
    await asyncio.gather(first, return_exceptions=True)
    assert (first.cancelled(), second.cancelled()) == (True, True)


async def test_a_random_crowd_leaves_nothing_behind():
    """Arrivals, departures, timeouts, cancels and changing limits: never more than the limit, nothing left counted."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    turnstile = Turnstile(10, Hand())
    turnstile.limit.value, turnstile.limit.num_spare = 3, rng.randrange(3)
    ends = {"through": 0, "refused": 0, "cancelled": 0}

    async def caller() -> None:
        await asyncio.sleep(rng.random())
        weight = rng.randrange(1, 3)
        try:
            entry = await turnstile.enter(f"t{rng.randrange(5)}", rng.randrange(2), weight, rng.choice((0.01, 0.2, 5)))
        except MeshError:
            ends["refused"] += 1
            return
        try:
            ends["through"] += 1
            assert turnstile.num_running <= 4, f"seed {seed}"
            await asyncio.sleep(rng.random() * 0.02)
        finally:
            turnstile.leave(entry)

    async def unsteady() -> None:
        while True:
            await asyncio.sleep(0.01)
            turnstile.limit.value = rng.choice((1, 2, 3, 4))
            turnstile.advance()

    changing = asyncio.create_task(unsteady())
    tasks = [asyncio.create_task(caller()) for _ in range(400)]
    await asyncio.sleep(0.3)
    for task in rng.sample(tasks, 60):
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), f"seed {seed}: {outcome!r}"
    changing.cancel()
    assert turnstile.num_running == 0, f"seed {seed}"
    assert turnstile.is_empty, f"seed {seed}"
    assert turnstile._num_spare == 0, f"seed {seed}"
    assert ends["through"] > 50


async def until_waiting(turnstile: Turnstile, count: int) -> None:
    """Wait until so many are in line."""
    while len(turnstile.line) != count:  # noqa: ASYNC110 - the line tells nobody
        await asyncio.sleep(0.01)


class Waiting:
    """Workers that report a line."""

    num = 0

    def num_waiting(self, endpoint: str) -> int:
        """The same for each."""
        return self.num


async def test_each_model_has_its_own_line():
    """By its workers' places; one that leaves the catalog is forgotten when nobody is left."""
    lane = small_lane(num_workers=2)
    model = ServedModel("small", lanes=(lane,))
    catalog = MemoryCatalog(Catalog(models=(model,)))
    clock, load = Hand(), Waiting()
    turnstiles = Turnstiles(catalog, load, clock=clock)
    first = await turnstiles.enter(model, "a", 0, 1, 60)
    places = sum(worker.max_sequences for worker in lane.workers)
    limit = turnstiles.by_model["small"].limit
    assert limit.value == (HEADROOM * places if places else float("inf"))
    catalog.publish(Catalog())
    turnstiles.adapt()
    assert "small" in turnstiles.by_model
    first.give_back()
    first.give_back()
    turnstiles.adapt()
    assert turnstiles.by_model == {}


async def test_both_doors_wait_and_refuse(fronts):
    """503 with `retry-after` over REST, the same reason in the pipeline; a request that has no time waits for none."""
    async with fronts(saying("hi")) as front:
        workers = front.house.workers
        workers.hold.clear()
        running = asyncio.create_task(front.chat())
        await workers.until_running(1)
        turnstile = front.house.collaborators.turnstiles.by_model["small"]
        turnstile.limit.value = 1
        waiting = asyncio.create_task(front.chat())
        await until_waiting(turnstile, 1)
        late = await front.http.post(
            "/v1/chat/completions",
            json={"model": "small", "messages": [{"role": "user", "content": "hi"}]},
            headers={"x-request-timeout": "0.1"},
        )
        assert (late.status_code, late.json()["error"]["reason"]) == (504, "DEADLINE_EXCEEDED")
        turnstile.line._max_tickets = 1
        full = await front.chat()
        assert (full.status_code, full.json()["error"]["reason"]) == (503, "QUEUE_FULL")
        assert int(full.headers["retry-after"]) >= 1
        assert full.headers["x-should-retry"] == "true"
        workers.hold.set()
        assert (await running).status_code == (await waiting).status_code == 200
        assert turnstile.num_running == 0


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1e3", "nan", "1;2", "9" * 40])
async def test_a_time_that_is_none_is_refused(front, text):
    """With what is accepted."""
    response = await front.http.post("/v1/chat/completions", json={}, headers={"x-request-timeout": text})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-timeout"


async def test_a_client_that_leaves_the_line_is_forgotten(fronts):
    """Its place is free, no worker hears of it, and its request is settled."""
    async with fronts(saying("hi")) as front:
        front.house.workers.hold.clear()
        running = asyncio.create_task(front.chat())
        await front.house.workers.until_running(1)
        turnstile = front.house.collaborators.turnstiles.by_model["small"]
        turnstile.limit.value = 1
        leaving = asyncio.create_task(front.chat())
        await until_waiting(turnstile, 1)
        leaving.cancel()
        await until_waiting(turnstile, 0)
        front.house.workers.hold.set()
        assert (await running).status_code == 200
        await front.house.journal.until_closed(2)
        assert {receipt.reason for receipt in front.house.journal.receipts} == {"ok", "CANCELLED"}
        assert len(front.house.workers.orders) == 1
