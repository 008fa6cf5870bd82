"""A running engine with its names: what the service answers with.

Knows nothing about protobuf or servers.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serin_mesh.load import LoadReport

from serin_worker.description import EngineDescription
from serin_worker.namespaces import Namespaces

if TYPE_CHECKING:  # torch takes seconds to import; the server listens before that
    from serin_worker.loop import EngineLoop


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
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    """Differs after every start; watchers of the cache begin anew."""


class StepWatch:
    """Whether the engine still moves: its step counter grows while there is work.

    Args:
        loop: the engine.
        stall_s: seconds without a step, while there is work, that mean it is stuck.
    """

    def __init__(self, loop: "EngineLoop", stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._stall_s = stall_s
        self._clock = clock
        self._num_steps = loop.num_steps
        self._moved_at = clock()

    def is_moving(self) -> bool:
        """Asked about once a second."""
        if self._loop.failure is not None:
            return False
        now, num_steps = self._clock(), self._loop.num_steps
        if num_steps != self._num_steps or not self._loop.has_work:
            self._num_steps, self._moved_at = num_steps, now
        return now - self._moved_at < self._stall_s


def load_of(serving: Serving) -> LoadReport:
    """Load now: utilization is the fullest of slots (waiting ones count) and KV blocks."""
    engine = serving.loop.engine
    scheduler, slots = engine.scheduler, serving.about.max_num_sequences
    kv = engine.pool.usage
    return LoadReport(
        utilization=max((scheduler.num_running + scheduler.num_waiting) / slots, kv),
        requests_per_s=engine.rate.per_s(),
        named={"kv": kv, "running": scheduler.num_running, "waiting": scheduler.num_waiting},
    )
