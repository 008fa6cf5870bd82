"""A running engine with its names: what the service answers with.

Knows nothing about protobuf or servers.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from serin_mesh.load import LoadReport

from serin_worker.description import EngineDescription
from serin_worker.errors import NotFinite, WorkerError
from serin_worker.grammars.opening import Grammars, no_grammars
from serin_worker.namespaces import Namespaces
from serin_worker.outputs import Failed
from serin_worker.request import ScoreRequest

if TYPE_CHECKING:  # torch takes seconds to import; the server listens before that
    from serin_worker.loop import EngineLoop


LONGEST_GAP_S = 1.0
"""The liveness probe asks twice a second; it is held up, too, when it asks later than this."""


@dataclass(frozen=True, slots=True)
class Serving:
    """An engine that serves one model version as one instance."""

    loop: "EngineLoop"
    about: EngineDescription
    vocabulary_digest: str
    namespaces: Namespaces
    model: str
    version: str
    instance: str
    grammars: Grammars = field(default_factory=no_grammars)
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    """Differs after every start; watchers of the cache begin anew."""

    @property
    def result_digest(self) -> str:
        """Of everything that decides what it computes."""
        return self.about.kv_digest

    def load(self) -> LoadReport:
        """Load now: utilization is the fullest of slots (waiting ones count) and KV blocks."""
        engine = self.loop.engine
        scheduler, slots = engine.scheduler, self.about.max_num_sequences
        kv = engine.pool.usage
        return LoadReport(
            utilization=max((scheduler.num_running + scheduler.num_waiting) / slots, kv),
            requests_per_s=engine.rate.per_s(),
            named={"kv": kv, "running": scheduler.num_running, "waiting": scheduler.num_waiting},
        )

    async def computes_numbers(self) -> bool:
        """Ask the model a fixed question: whether the answer's probabilities are numbers.

        Raises:
            WorkerError: it could not be asked.
        """
        ids = [number % self.about.vocabulary_size for number in range(1, min(9, self.about.context_length))]
        with self.loop.submit(ScoreRequest("numerics-check", ids[:1], ids[1:], priority=100)) as stream:
            while outputs := await stream.read():
                match outputs[-1]:
                    case Failed(error) if isinstance(error, NotFinite):
                        return False
                    case Failed(error):
                        raise error
        return True


class Moving(Protocol):
    """What steps in a thread of its own."""

    @property
    def failure(self) -> WorkerError | None:
        """Why it can no longer step, if so."""

    @property
    def num_moves(self) -> int:
        """Signs that a step goes on: steps, and the layers inside of them."""

    @property
    def has_work(self) -> bool:
        """Whether steps are due."""


class StepWatch:
    """Whether the engine still moves: while there is work it takes steps, and computes layers in a long one.

    Between two questions at most ``LONGEST_GAP_S`` count: a process that was itself held up has a thread that was too.

    Args:
        loop: the engine.
        stall_s: seconds without a step or a layer, while there is work, that mean it is stuck.
    """

    def __init__(self, loop: Moving, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._stall_s = stall_s
        self._clock = clock
        self._num_moves = loop.num_moves
        self._asked_at = clock()
        self._still_s = 0.0

    def is_moving(self) -> bool:
        """Asked about twice a second."""
        if self._loop.failure is not None:
            return False
        now, num_moves = self._clock(), self._loop.num_moves
        self._still_s += min(now - self._asked_at, LONGEST_GAP_S)
        self._asked_at = now
        if num_moves != self._num_moves or not self._loop.has_work:
            self._num_moves, self._still_s = num_moves, 0.0
        return self._still_s < self._stall_s
