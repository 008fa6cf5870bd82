"""Kills and stops workers by a seeded plan that leaves one in peace at any time. Knows nothing about requests."""

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

from faults.history.record import Harm, History
from harness.workers import Workers

LONGEST_STOP_S = 4.5
"""Long enough to be noticed; short ones are not."""


def plan(rng: random.Random, count: int) -> Iterator[tuple[str, float, float]]:
    """So many harms: kind, seconds a stop lasts, and a number that chooses among the workers."""
    for _ in range(count):
        yield rng.choice(("kill", "stop")), rng.uniform(0.1, LONGEST_STOP_S), rng.random()


class Harming:
    """Carries out a plan."""

    def __init__(self, workers: Workers, history: History) -> None:
        self._workers = workers
        self._history = history
        self._restarts: dict[str, asyncio.Task[None]] = {}

    async def run(self, rng: random.Random, count: int) -> None:
        """All of it; returns when every worker is well again."""
        for kind, stop_s, choice in plan(rng, count):
            ready = await self._await_spare()
            victim = ready[int(choice * len(ready))]
            if kind == "kill":
                self._restarts[victim] = asyncio.create_task(self._kill(victim))
            else:
                await self._stop(victim, stop_s)
        for restart in self._restarts.values():
            await restart
        await self._workers.ready()

    async def _await_spare(self) -> list[str]:
        """Workers that may be harmed now: at least two are well, so that one stays."""
        while True:
            ready = await self._workers.ready(at_least=2)
            well = sorted(name for name in ready if name not in self._restarts or self._restarts[name].done())
            if len(well) >= 2:
                return well
            await asyncio.wait(self._restarts.values(), return_when=asyncio.FIRST_COMPLETED)
            self._restarts = {name: task for name, task in self._restarts.items() if not task.done()}

    async def _kill(self, victim: str) -> None:
        pid = self._workers.harm(victim, signal.SIGKILL)
        at = self._begin("kill", victim)
        await self._workers.restarted(victim, pid)
        self._end(at)

    async def _stop(self, victim: str, stop_s: float) -> None:
        self._workers.harm(victim, signal.SIGSTOP)
        at = self._begin("stop", victim)
        try:
            await asyncio.sleep(stop_s)  # the fault itself: time that passes for others alone
        finally:
            self._workers.harm(victim, signal.SIGCONT)
        self._end(at)

    def _begin(self, kind: str, victim: str) -> int:
        self._history.harms.append(Harm(kind, victim, time.monotonic()))
        return len(self._history.harms) - 1

    def _end(self, at: int) -> None:
        self._history.harms[at] = replace(self._history.harms[at], ended_at=time.monotonic())
