"""The workers of one model in a running mesh: which are ready, which are busy, and how one is harmed.

Knows member names, the control plane's list and metrics; nothing about requests.
"""

import asyncio
import os
import signal
from collections.abc import Sequence

import grpc
import httpx
from serin.control.v1 import registry_pb2

from harness.eventually import eventually
from harness.instances import await_instances
from harness.metrics import read_metrics
from harness.running_mesh import RunningMesh

RESTART_TIMEOUT_S = 90.0
LOOK_TIMEOUT_S = 5.0


class Workers:
    """Workers of a model by their names in the mesh."""

    def __init__(self, mesh: RunningMesh, model: str, count: int) -> None:
        self._mesh = mesh
        self._model = model
        self._count = count

    async def ready(self, at_least: int | None = None) -> dict[str, str]:
        """Wait until all are ready, or some; their metrics, ``host:port`` by name."""
        count = at_least or self._count

        async def look() -> dict[str, str]:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    instances = await await_instances(self._mesh, lambda found: len(self._ready(found)) >= count)
            except (grpc.RpcError, TimeoutError):
                return {}
            return self._ready(instances)

        return await eventually(look, bool, f"{count} workers ready", timeout_s=RESTART_TIMEOUT_S)

    async def busy(self, endpoints: dict[str, str]) -> list[str]:
        """Which of these run something, busiest first; waits for one."""

        async def look() -> list[str]:
            running = {name: await self._num_running(name, endpoint) for name, endpoint in endpoints.items()}
            return sorted((name for name in running if running[name]), key=lambda name: -running[name])

        return await eventually(look, bool, "a busy worker")

    def pid(self, name: str) -> int:
        """Its process."""
        return self._mesh.members()[name].pid

    def harm(self, name: str, number: signal.Signals) -> int:
        """Send it a signal; its process id."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    async def restarted(self, name: str, old_pid: int) -> None:
        """Wait until another process has its name."""

        async def look() -> int | None:
            return self._mesh.members()[name].pid

        await eventually(look, lambda pid: pid not in (None, old_pid), f"a new {name}", timeout_s=RESTART_TIMEOUT_S)

    def _ready(self, instances: Sequence[registry_pb2.Instance]) -> dict[str, str]:
        return {
            instance.registration.instance: instance.registration.http_endpoint
            for instance in instances
            if instance.registration.service == registry_pb2.SERVICE_KIND_WORKER
            and instance.registration.model == self._model
            and instance.heartbeat.state == registry_pb2.INSTANCE_STATE_READY
        }

    async def _num_running(self, name: str, endpoint: str) -> float:
        try:
            return (await read_metrics(endpoint)).get("vllm:num_requests_running", 0.0)
        except (OSError, httpx.TransportError):  # it has just been harmed
            return 0.0
