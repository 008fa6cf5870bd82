"""The lanes of all models as the control plane publishes them, kept up to date.

A stream of news says nothing for hours where nothing changes, and just as little where its control plane hangs: where
there is another one to turn to, the one that is listened to is asked now and then whether it says anything at all.
While every control plane is away the last answer stays in force. Knows nothing about how a lane is chosen.
"""

import asyncio
import random
from collections.abc import AsyncIterator

from serin.control.v1 import lane_pb2, lane_pb2_grpc, registry_pb2

from serin_mesh import logs
from serin_mesh.channels import ChannelSettings, MeshChannel, connect, control_addresses
from serin_mesh.errors import MeshError
from serin_mesh.health import says_anything

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0
ASK_EVERY_S = 1.0
HANGS_AFTER_S = 2.0

Snapshot = lane_pb2.WatchLanesResponse


class LaneWatch:
    """Watches the lanes at one control plane after the other, while it is entered."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.current: Snapshot | None = None
        """The lanes in force; None: none were heard of yet."""
        self._settings = settings
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = logs.get()

    async def __aenter__(self) -> "LaneWatch":
        self._task = asyncio.create_task(self._keep_watching(), name="watch lanes")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def first(self) -> Snapshot:
        """The lanes, as soon as there are any."""
        while self.current is None:
            await self._changed.wait()
        return self.current

    async def changes(self) -> AsyncIterator[Snapshot]:
        """The lanes now and after each change; a slow reader sees the newest, not each."""
        seen: Snapshot | None = None
        while True:
            changed = self._changed
            if self.current is not None and self.current is not seen:
                seen = self.current
                yield seen
            else:
                await changed.wait()

    def lanes_of(self, service: "registry_pb2.ServiceKind.ValueType", model: str, version: str) -> dict[str, int]:
        """Lanes that a version of a service is a member of, with their weights, heaviest first."""
        return {
            lane.lane: lane.weight
            for one in (self.current.models if self.current else ())
            if one.name == model
            for lane in sorted(one.lanes, key=lambda lane: -lane.weight)
            if any(member.service == service and member.version == version for member in lane.members)
        }

    async def _keep_watching(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            addresses = control_addresses(self._settings.control)
            for address in addresses:
                if await self._watch(address, has_others=len(addresses) > 1):
                    pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(MAX_PAUSE_S, pause_s * 2)

    async def _watch(self, address: str, *, has_others: bool) -> bool:
        """Listen to one control plane until it falls silent; whether anything was heard of it."""
        before = self.current
        async with connect(address, self._settings, echo_lane=False, service="control") as channel:
            listening = asyncio.create_task(self._listen(channel), name=f"listen to {address}")
            tasks = [listening]
            if has_others:
                tasks.append(asyncio.create_task(_until_silent(channel), name=f"ask {address}"))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if listening.done():
                    listening.result()
                else:
                    self._log.warning("lanes.control_hangs", control=address, silent_s=HANGS_AFTER_S)
            except MeshError as error:
                self._log.warning("lanes.watch_broken", control=address, reason=error.reason, message=error.message)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return self.current is not before

    async def _listen(self, channel: MeshChannel) -> None:
        async for snapshot in lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest()):
            self._accept(snapshot)

    def _accept(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()


async def _until_silent(channel: MeshChannel) -> None:
    """Ask whoever is there again and again, until it says nothing."""
    while True:
        if not await says_anything(channel, "control", timeout_s=HANGS_AFTER_S):
            return
        await asyncio.sleep(ASK_EVERY_S)
