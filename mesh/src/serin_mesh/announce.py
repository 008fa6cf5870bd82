"""Announces this instance to every control plane, for as long as it lives.

Each control plane has its own stream: registration first, then a heartbeat at the interval it asks for and at every
change of readiness. A broken stream is opened again after a pause that grows to 2 s until a stream stands: one that is
refused is accepted first, since the registration says little, and ends with its first heartbeat. Knows nothing about
how the control plane uses it.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

from serin.control.v1 import registry_pb2, registry_pb2_grpc

from serin_mesh import logs
from serin_mesh.channels import ChannelSettings, connect, control_addresses
from serin_mesh.errors import MeshError
from serin_mesh.readiness import Condition, Readiness, State
from serin_mesh.resident import resident_bytes

DEFAULT_HEARTBEAT_S = 1.0
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0
FAREWELL_S = 1.0

KINDS = {
    "gateway": registry_pb2.SERVICE_KIND_GATEWAY,
    "tokenizer": registry_pb2.SERVICE_KIND_TOKENIZER,
    "worker": registry_pb2.SERVICE_KIND_WORKER,
    "cache": registry_pb2.SERVICE_KIND_CACHE,
    "control": registry_pb2.SERVICE_KIND_CONTROL,
}
"""Kind of each service by its name, which is also its identity in certificates and in xDS targets."""

_STATES = {
    State.STARTING: registry_pb2.INSTANCE_STATE_STARTING,
    State.READY: registry_pb2.INSTANCE_STATE_READY,
    State.STALLED: registry_pb2.INSTANCE_STATE_STARTING,  # gets no traffic; its activity says why
    State.DRAINING: registry_pb2.INSTANCE_STATE_DRAINING,
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is announced beyond what a server knows by itself.

    Args:
        model: the model it serves; empty for services that serve all models.
        http_endpoint: ``host:port`` of its REST port; empty: the metrics port is announced.
        written_format: format in which it keeps things for others to read, from 1; 0: it keeps nothing.
        read_formats: formats that it reads.
    """

    model: str = ""
    http_endpoint: str = ""
    written_format: int = 0
    read_formats: tuple[int, ...] = ()


class Announcer:
    """Holds one stream to each control plane while it is entered."""

    def __init__(
        self, settings: ChannelSettings, registration: registry_pb2.Registration, readiness: Readiness
    ) -> None:
        self._settings = settings
        self._registration = registration
        self._readiness = readiness
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = asyncio.Event()
        self._log = logs.get()

    async def __aenter__(self) -> "Announcer":
        self._tasks = [
            asyncio.create_task(self._keep_announcing(address), name=f"announce {address}")
            for address in control_addresses(self._settings.control)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Withdraw everywhere; a control plane that does not listen learns it when the lease ends."""
        self._leaving.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_announcing(self, address: str) -> None:
        pause_s = FIRST_PAUSE_S
        async with connect(address, self._settings, echo_lane=False, service="control") as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            while not self._leaving.is_set():
                stream = _Stream(stub.Announce(), self._registration, self._readiness, self._leaving)
                try:
                    await stream.run()
                except MeshError as error:
                    say = self._log.warning if error.status.retryable else self._log.error
                    say("announce.broken", control=address, reason=error.reason, message=error.message)
                if stream.stood:
                    pause_s = FIRST_PAUSE_S
                try:
                    async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                        await self._leaving.wait()
                except TimeoutError:
                    pause_s = min(MAX_PAUSE_S, pause_s * 2)


class _Stream:
    """One announcement to one control plane."""

    def __init__(
        self, call: Any, registration: registry_pb2.Registration, readiness: Readiness, leaving: asyncio.Event
    ) -> None:
        self._accepted_at: float | None = None  # seconds, monotonic
        self._call = call
        self._registration = registration
        self._readiness = readiness
        self._leaving = leaving
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._news = asyncio.Event()

    @property
    def stood(self) -> bool:
        """Whether it was accepted and has outlived a heartbeat: what is refused has not."""
        return self._accepted_at is not None and time.monotonic() - self._accepted_at >= self._heartbeat_s

    async def run(self) -> None:
        """Announce until leaving, or until the stream breaks.

        Raises:
            MeshError: the stream broke or was refused.
        """
        answers = asyncio.create_task(self._follow_answers())
        answers.add_done_callback(lambda _: self._news.set())
        forget = self._readiness.watch(lambda _: self._news.set())
        leaving = asyncio.create_task(self._leave())
        try:
            await self._call.write(registry_pb2.AnnounceRequest(registration=self._registration))
            while not self._leaving.is_set() and not answers.done():
                self._news.clear()
                await self._call.write(registry_pb2.AnnounceRequest(heartbeat=heartbeat(self._readiness.condition)))
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await self._news.wait()
                except TimeoutError:
                    pass  # nothing new: time for a heartbeat
            if self._leaving.is_set():
                await self._call.write(registry_pb2.AnnounceRequest(withdrawal=registry_pb2.Withdrawal()))
                await self._call.done_writing()
            await answers
        except asyncio.InvalidStateError:
            await answers  # the stream ended while we wrote; the answers know why
        finally:
            forget()
            for task in (answers, leaving):
                task.cancel()
            self._call.cancel()
            await asyncio.gather(answers, leaving, return_exceptions=True)

    async def _leave(self) -> None:
        await self._leaving.wait()
        self._news.set()

    async def _follow_answers(self) -> None:
        async for answer in self._call:
            if self._accepted_at is None:
                self._accepted_at = time.monotonic()
            if answer.heartbeat_seconds > 0:
                self._heartbeat_s = answer.heartbeat_seconds


def heartbeat(now: Condition) -> registry_pb2.Heartbeat:
    """A heartbeat that says what is so now."""
    beat = registry_pb2.Heartbeat(
        state=_STATES[now.state],
        progress=now.progress,
        activity=now.activity,
        resident_byte_count=resident_bytes(),
    )
    if now.state in (State.READY, State.DRAINING):
        beat.digests.CopyFrom(now.digests)
        beat.capacity.CopyFrom(now.capacity)
    return beat
