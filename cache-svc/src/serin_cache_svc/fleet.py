"""The workers there are, as the control plane says; each is watched while it is there.

Knows which watches must run; nothing about what a watch does, nor about protobuf.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from serin_cache_svc.errors import WorkersUnknown


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker: what it serves, its instance's name, and where it is; another instance at the same place is another."""

    model: str
    instance: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Workers:
    """All workers: those that take requests, and those that only finish what they have."""

    serving: frozenset[Worker]
    draining: frozenset[Worker] = frozenset()


Watch = Callable[[Worker], Coroutine[Any, Any, None]]
"""Watches one worker until cancelled, and forgets it then."""


class Fleet:
    """Runs a watch for every worker that takes requests."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._watches: dict[Worker, asyncio.Task[None]] = {}
        self._known: Workers | None = None

    @property
    def everybody(self) -> frozenset[Worker]:
        """All workers, the draining ones too: they still hold what they computed.

        Raises:
            WorkersUnknown: no control plane has said anything yet.
        """
        if self._known is None:
            raise WorkersUnknown("the mesh's workers are not known yet: no control plane has answered")
        return self._known.serving | self._known.draining

    @property
    def watches(self) -> Mapping[Worker, "asyncio.Task[None]"]:
        """Running watches by worker."""
        return self._watches

    async def follow(self, changes: AsyncIterator[Workers]) -> None:
        """Start and end watches as workers come and go, until cancelled; then end all."""
        try:
            async for workers in changes:
                self._known = workers
                gone = [worker for worker in self._watches if worker not in workers.serving]
                await self._end([self._watches.pop(worker) for worker in gone])
                for worker in workers.serving - self._watches.keys():
                    name = f"watch cache of {worker.endpoint}"
                    self._watches[worker] = asyncio.create_task(self._watch(worker), name=name)
        finally:
            await self._end(list(self._watches.values()))
            self._watches.clear()

    async def _end(self, tasks: "list[asyncio.Task[None]]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
