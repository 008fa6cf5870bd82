"""The turnstiles of all models, adapted to what their workers report.

Knows nothing about doors or how load is reported.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from serin_mesh.errors import MeshError

from serin_gateway.catalog import CatalogSource, ServedModel
from serin_gateway.overload.turnstile import Entry, Turnstile

ADAPT_EVERY_S = 0.25
DEFAULT_MAX_WAITING = 1024


class WorkersLoad(Protocol):
    """What workers report."""

    def num_waiting(self, endpoint: str) -> int:
        """Sequences that wait on a worker, whoever placed them; 0 when that is unknown."""


class NoReports:
    """Workers that report nothing."""

    def num_waiting(self, endpoint: str) -> int:
        """Unknown."""
        return 0


@dataclass(slots=True)
class Pass:
    """A request that was let through, until it says that it is over."""

    turnstile: Turnstile
    entry: Entry | None
    since: float
    clock: Callable[[], float]

    def give_back(self, *, is_answered: bool = False) -> None:
        """It is over, with a whole answer or without one. Calling twice changes nothing."""
        entry, self.entry = self.entry, None
        if entry is not None:
            self.turnstile.leave(entry, self.clock() - self.since, is_whole=is_answered)


class Turnstiles:
    """One for each model; `keep_adapting` is a task of whoever owns them.

    Args:
        catalog: the models and their workers' places.
        load: what workers report.
        max_waiting: requests that may wait for one model, of one priority.
        clock: seconds that only go forward; another one for tests.
        on_refused: told of each request that is refused: its model, and why (``full`` or ``late``).
    """

    def __init__(
        self,
        catalog: CatalogSource,
        load: WorkersLoad | None = None,
        *,
        max_waiting: int = DEFAULT_MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
        on_refused: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._catalog = catalog
        self._load = load or NoReports()
        self._max_waiting = max_waiting
        self._clock = clock
        self._on_refused = on_refused
        self.by_model: dict[str, Turnstile] = {}

    async def enter(
        self, model: ServedModel, tenant: str, priority: int, weight: int, timeout_s: float, *, num_turns: int = 1
    ) -> Pass:
        """Let a request through to a model's workers, now or when it is its turn.

        Raises:
            MeshError: QUEUE_FULL, DEADLINE_EXCEEDED; see :meth:`Turnstile.enter`.
        """
        turnstile = self._of(model)
        entry = await turnstile.enter(tenant, priority, weight, timeout_s, num_turns=num_turns)
        return Pass(turnstile, entry, self._clock(), self._clock)

    def look(
        self, model: ServedModel, tenant: str, priority: int, weight: int, timeout_s: float, *, num_turns: int = 1
    ) -> None:
        """Refuse whom :meth:`enter` would refuse at once for its time, before anything was done for it.

        Raises:
            MeshError: QUEUE_FULL.
        """
        self._of(model).look(tenant, priority, weight, timeout_s, num_turns=num_turns)

    async def keep_adapting(self) -> None:
        """Follow the reports, for as long as this task lives."""
        while True:
            await asyncio.sleep(ADAPT_EVERY_S)
            self.adapt()

    def adapt(self) -> None:
        """Follow the reports, once."""
        try:
            models = {model.name: model for model in self._catalog.current().models}
        except MeshError:
            return
        for name, turnstile in list(self.by_model.items()):
            if name in models:
                self._adapt(models[name], turnstile)
            elif turnstile.is_empty:
                del self.by_model[name]

    def _of(self, model: ServedModel) -> Turnstile:
        turnstile = self.by_model.get(model.name)
        if turnstile is None:
            turnstile = self._make(model.name)
            self._adapt(model, turnstile)
        return turnstile

    def _make(self, name: str) -> Turnstile:
        turnstile = Turnstile(self._max_waiting, self._clock, lambda why: self._on_refused(name, why))
        self.by_model[name] = turnstile
        return turnstile

    def _adapt(self, model: ServedModel, turnstile: Turnstile) -> None:
        workers = {worker.endpoint: worker for lane in model.lanes for worker in lane.workers}
        turnstile.adapt(
            sum(worker.max_sequences for worker in workers.values()),
            sum(self._load.num_waiting(endpoint) for endpoint in workers),
        )
