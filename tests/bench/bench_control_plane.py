"""A control plane in a process of its own, which a benchmark may kill. Knows nothing about what is measured."""

import asyncio
import contextlib
import sys
from pathlib import Path

from harness.eventually import eventually
from harness.leash import leashed
from serin.control.v1 import lane_pb2, lane_pb2_grpc
from serin_mesh.channels import MeshChannel, connect
from serin_mesh.errors import MeshError
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import free_port


class ControlProcess:
    """A control plane by its own command, on a port that stays."""

    def __init__(self, folder: Path, redis: str, name: str = "control") -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        config = folder / f"{name}.yaml"
        config.write_text(declaration(1))
        port = self.address.rpartition(":")[2]
        flags = [f"--port={port}", f"--config-file={config}", f"--state-redis={redis}", f"--instance={name}"]
        self._command = leashed([sys.executable, "-m", "serin_control", *flags, "--log-format=json"])
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
        await eventually(self.lanes, lambda lanes: lanes is not None, self.name, timeout_s=60)

    async def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def channel(self) -> MeshChannel:
        """A channel to it."""
        settings = ServiceSettings(control=self.address, instance="bench")
        return connect(self.address, settings, echo_lane=False, deadline_s=10)

    async def lanes(self) -> lane_pb2.WatchLanesResponse | None:
        """What it publishes to gateways; None: it does not answer."""
        async with self.channel() as channel:
            try:
                async for lanes in lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest()):
                    return lanes
            except MeshError:
                pass
        return None


def declaration(heavy: int) -> str:
    """Two versions; ``heavy`` has all but the least weight."""
    weights = {version: 9_999 if version == heavy else 1 for version in (1, 2)}
    versions = ", ".join(f"v{version}: {{path: x{version}, weight: {weight}}}" for version, weight in weights.items())
    return f"models: {{small: {{versions: {{{versions}}}}}}}\n"
