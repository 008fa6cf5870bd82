"""The lanes of all models as the control plane publishes them, kept up to date.

While every control plane is away the last answer stays in force. Knows nothing about how a lane is chosen.
"""

import asyncio
import random
from collections.abc import AsyncIterator

from serin.control.v1 import lane_pb2, lane_pb2_grpc, registry_pb2

from serin_mesh import logs
from serin_mesh.channels import ChannelSettings, connect, control_addresses
from serin_mesh.errors import MeshError

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0

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
            for address in control_addresses(self._settings.control):
                if await self._watch(address):
                    pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(MAX_PAUSE_S, pause_s * 2)

    async def _watch(self, address: str) -> bool:
        heard = False
        async with connect(address, self._settings, echo_lane=False, service="control") as channel:
            try:
                async for snapshot in lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest()):
                    heard = True
                    self._accept(snapshot)
            except MeshError as error:
                self._log.warning("lanes.watch_broken", control=address, reason=error.reason, message=error.message)
        return heard

    def _accept(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()
