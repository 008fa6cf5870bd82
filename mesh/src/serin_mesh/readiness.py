"""Whether a service is ready, and why not. Everybody who must know is told at once.

Knows nothing about who listens: health, announcements and HTTP probes all follow one Readiness. Belongs to one event
loop: threads reach it by ``loop.call_soon_threadsafe``.
"""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serin.control.v1 import registry_pb2


class State(enum.StrEnum):
    """What an instance is doing. STALLED: it was ready, and its liveness probe says that it no longer moves."""

    STARTING = "starting"
    READY = "ready"
    STALLED = "stalled"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Condition:
    """One moment of a service's readiness."""

    state: State = State.STARTING
    activity: str = "starting"
    progress: float = 0.0
    digests: registry_pb2.Digests = field(default_factory=registry_pb2.Digests)
    capacity: registry_pb2.Capacity = field(default_factory=registry_pb2.Capacity)
    was_ready: bool = False
    """Whether there is something that can serve: a drain may begin before there ever was."""

    @property
    def can_serve(self) -> bool:
        """Whether a call that arrives now can be served; in a drain it can, for those who do not know of it yet."""
        return self.state is State.READY or (self.state is State.DRAINING and self.was_ready)


class Readiness:
    """The readiness of one service.

    Args:
        probe: asked twice a second while ready; False means that the service no longer moves (a worker compares its
            step counter). True again makes it ready again.
    """

    def __init__(self, probe: Callable[[], bool] | None = None) -> None:
        self.condition = Condition()
        self._probe = probe
        self._callbacks: list[Callable[[Condition], None]] = []
        self._changed = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether calls are welcome."""
        return self.condition.state is State.READY

    def starting(self, activity: str, progress: float = 0.0) -> None:
        """Say what is being done before the service is ready; ``progress`` from 0 to 1."""
        self._become(Condition(State.STARTING, activity, progress))

    def ready(
        self, *, digests: registry_pb2.Digests | None = None, capacity: registry_pb2.Capacity | None = None
    ) -> None:
        """Say that calls are welcome, what the service holds and what it can bear."""
        digests, capacity = digests or registry_pb2.Digests(), capacity or registry_pb2.Capacity()
        self._become(Condition(State.READY, "", 1.0, digests, capacity, was_ready=True))

    def draining(self) -> None:
        """Say that running calls are finished and no new ones are welcome; there is no way back."""
        self._become(replace(self.condition, state=State.DRAINING, activity="draining"))

    def probe(self) -> None:
        """Ask the liveness probe and follow its answer."""
        now = self.condition
        if self._probe is None or now.state not in (State.READY, State.STALLED):
            return
        state = State.READY if self._probe() else State.STALLED
        if state is not now.state:
            activity = "not answering" if state is State.STALLED else ""
            self._become(replace(now, state=state, activity=activity))

    async def wait(self, state: State = State.READY) -> None:
        """Wait until the service is in this state."""
        while self.condition.state is not state:
            changed = self._changed
            await changed.wait()

    def watch(self, callback: Callable[[Condition], None]) -> Callable[[], None]:
        """Call back now and at every change; returns what ends that."""
        self._callbacks.append(callback)
        callback(self.condition)
        return lambda: self._callbacks.remove(callback)

    def _become(self, condition: Condition) -> None:
        if self.condition.state is State.DRAINING and condition.state is not State.DRAINING:
            return
        self.condition = condition
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()
        for callback in tuple(self._callbacks):
            callback(condition)
