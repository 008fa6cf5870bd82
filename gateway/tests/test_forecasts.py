"""How long a line seems, beside how long it is: the turnstile on a virtual clock, from idleness on, over seeds."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from serin_gateway.overload.turnstile import Turnstile
from serin_mesh.errors import MeshError


@dataclass(frozen=True)
class Refused:
    """Somebody who was refused at once: when, the time it had, how long an answer seemed, and whom it would follow."""

    at: float
    timeout_s: float
    answer_s: float
    place: int

    def real_wait_s(self, ends: list[float]) -> float:
        """How long it would have waited: each end lets the next one in."""
        return (ends[self.place] if self.place < len(ends) else ends[-1]) - self.at


class Rush:
    """Requests at one turnstile, each answer as long as it is drawn; time goes from event to event."""

    def __init__(self, num_places: int, draw: Callable[[], float]) -> None:
        self.now = 0.0
        self.refused: list[Refused] = []
        self.ends: list[float] = []
        self.longest_wait_s = 0.0
        self.num_let_in = 0
        self._draw = draw
        self._turnstile = Turnstile(4096, lambda: self.now)
        self._turnstile.limit.value = float(num_places)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, at: float, timeout_s: float) -> None:
        """Somebody comes then, with so much time."""
        self._at(at, lambda: self._tasks.append(asyncio.create_task(self._request(timeout_s))))

    async def run(self) -> None:
        """Until all is over."""
        while self._events:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
            for _ in range(6):  # as far as whoever was let in goes
                await asyncio.sleep(0)
        await asyncio.gather(*self._tasks)

    def _at(self, time: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happens))

    async def _request(self, timeout_s: float) -> None:
        since, place = self.now, len(self._turnstile.line) + len(self.ends)
        try:
            entry = await self._turnstile.enter("a", 0, 1, timeout_s)
        except MeshError:
            if self.now == since:
                self.refused.append(Refused(since, timeout_s, self._turnstile._answers.most, place))
            return
        self.longest_wait_s = max(self.longest_wait_s, self.now - since)
        self.num_let_in += 1
        took_s = self._draw()

        def end() -> None:
            self.ends.append(self.now)
            self._turnstile.leave(entry, took_s, is_whole=True)

        self._at(self.now + took_s, end)


@pytest.mark.parametrize(
    ("answer_s", "arrivals", "timeout_s"),
    [
        (2.0, [*(n / 130 for n in range(130)), *(1.05 + n / 10 for n in range(30))], 20),
        (15.0, [*(n / 10 for n in range(100)), *(15.25 + n / 10 for n in range(10))], 30),
    ],
)
async def test_the_first_ends_after_idleness_are_no_slow_line(answer_s, arrivals, timeout_s):
    """Eighty places, and some more than that at once: all have time for what they wait, so nobody is refused."""
    rush = Rush(80, lambda: answer_s)
    for at in arrivals:
        rush.ask(at, timeout_s)
    await rush.run()
    assert rush.refused == []
    assert rush.longest_wait_s + answer_s < timeout_s


@pytest.mark.parametrize("seed", range(16))
async def test_nobody_is_refused_who_had_twice_the_time(seed):
    """Two rushes with idleness between, of answers that vary or do not: who is refused would mostly have been late."""
    rng = random.Random(seed)
    num_places, mean_s = rng.choice((8, 20, 80)), rng.choice((0.5, 2.0, 6.0, 15.0))
    vary = rng.choice(
        (
            lambda: 1.0,
            lambda: rng.uniform(0.5, 1.5),
            lambda: rng.expovariate(1),
            lambda: rng.lognormvariate(-0.125, 0.5),
        )
    )
    rush, begins = Rush(num_places, lambda: mean_s * vary()), 0.0

    def ask(at: float) -> None:
        rush.ask(at, mean_s * rng.uniform(1.5, 12))

    for _ in range(2):
        over_s = rng.choice((0.0, 0.2, 1.0, 3.0)) * mean_s * rng.random()
        for _ in range(int(num_places * rng.uniform(0.5, 2.5))):
            ask(begins + over_s * rng.random())
        at, ends = begins + over_s, begins + over_s + mean_s * rng.uniform(2, 6)
        while at < ends:
            at += rng.expovariate(rng.choice((0.5, 1.0, 1.6)) * num_places / mean_s)
            ask(at)
        begins = at + mean_s * 12 + rng.uniform(5, 100)
    await rush.run()
    needs = [(one, one.real_wait_s(rush.ends) + one.answer_s) for one in rush.refused]
    assert [(one, need_s) for one, need_s in needs if need_s <= one.timeout_s / 2] == []
    assert rush.num_let_in > len(rush.refused)


async def test_steady_overload_is_refused_early():
    """More than is borne, for minutes: few wait for an answer that will be late, and every place is used."""
    rng = random.Random(0)
    rush, at = Rush(20, lambda: 2 * rng.lognormvariate(-0.125, 0.5)), 0.0
    while at < 120:
        at += rng.expovariate(16)
        rush.ask(at, 20)
    await rush.run()
    in_time = [one for one in rush.refused if one.real_wait_s(rush.ends) + one.answer_s < 0.75 * one.timeout_s]
    assert len(rush.refused) > 300
    assert len(in_time) < 0.02 * len(rush.refused)
    assert len([end for end in rush.ends if end < 120]) > 0.95 * 10 * 120
    num_late = len(rush._tasks) - rush.num_let_in - len(rush.refused)
    assert num_late < 0.1 * len(rush.refused)
