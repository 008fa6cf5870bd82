"""For tests of rooms and of users: a real server with the whole onion in this process, and a twin of the control plane.

Nothing here is a mock: calls go over real sockets on free ports.
"""

import asyncio
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from serin.control.v1 import lane_pb2, lane_pb2_grpc, registry_pb2, registry_pb2_grpc

from serin_mesh.host import Register, ServiceHost
from serin_mesh.settings import ServiceSettings

_LOWEST_PORT, _HIGHEST_PORT = 10_000, 19_999
"""Below the ports that systems give to outgoing connections, and beside those of `serin up`."""


@asynccontextmanager
async def running(
    register: Register,
    service: str = "worker",
    *,
    settings: ServiceSettings | None = None,
    tls_dir: Path | None = None,
    **options: Any,
) -> AsyncIterator[ServiceHost]:
    """A server on a free port of loopback; ``server.connect()`` gives a channel to it.

    Args:
        register: adds the servicers.
        service: name of the service.
        settings: default: any free port, no control plane, a drain of at most 5 s.
        tls_dir: certificates, when ``settings`` is not given.
        options: as for :class:`ServiceHost`.
    """
    chosen = settings or ServiceSettings(tls_dir=tls_dir, drain_grace_s=5.0, drain_notice_s=0.0)
    options.setdefault("metrics_http", False)
    async with ServiceHost(chosen, service, register, **options) as host:
        yield host


class ControlTwin(registry_pb2_grpc.RegistryServiceServicer, lane_pb2_grpc.LaneServiceServicer):
    """A control plane in memory: keeps what is announced, publishes the lanes it is told."""

    def __init__(self, *, heartbeat_s: float = 1.0) -> None:
        self.instances: dict[str, registry_pb2.Instance] = {}
        """What each instance said last, by its name; gone once it has withdrawn."""
        self.num_registrations = 0
        self.num_heartbeats = 0
        self._heartbeat_s = heartbeat_s
        self._lanes = lane_pb2.WatchLanesResponse()
        self._changed = asyncio.Condition()

    def register(self, server: grpc.aio.Server) -> None:
        """Add both services to a server."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self, server)
        lane_pb2_grpc.add_LaneServiceServicer_to_server(self, server)

    async def publish(self, lanes: lane_pb2.WatchLanesResponse) -> None:
        """Publish these lanes to everybody who watches."""
        async with self._changed:
            self._lanes = lanes
            self._changed.notify_all()

    async def state_of(self, instance: str, state: "registry_pb2.InstanceState.ValueType") -> registry_pb2.Instance:
        """Wait until an instance has announced this state."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: instance in self.instances and self.instances[instance].heartbeat.state == state
            )
            return self.instances[instance]

    async def heard(self, *, num_heartbeats: int) -> None:
        """Wait until so many heartbeats came in all."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.num_heartbeats >= num_heartbeats)

    async def withdrawn(self, instance: str) -> None:
        """Wait until an instance is gone."""
        async with self._changed:
            await self._changed.wait_for(lambda: instance not in self.instances)

    async def Announce(self, requests: Any, context: Any) -> AsyncIterator[registry_pb2.AnnounceResponse]:  # noqa: N802
        """Keep one instance's announcements."""
        instance = ""
        async for request in requests:
            async with self._changed:
                kind = request.WhichOneof("message")
                if kind == "registration":
                    instance = request.registration.instance
                    self.num_registrations += 1
                    self.instances[instance] = registry_pb2.Instance(registration=request.registration)
                elif kind == "heartbeat":
                    self.num_heartbeats += 1
                    self.instances[instance].heartbeat.CopyFrom(request.heartbeat)
                else:
                    self.instances.pop(instance, None)
                self._changed.notify_all()
            yield registry_pb2.AnnounceResponse(
                heartbeat_seconds=self._heartbeat_s, lease_seconds=3 * self._heartbeat_s
            )

    async def WatchLanes(self, request: Any, context: Any) -> AsyncIterator[lane_pb2.WatchLanesResponse]:  # noqa: N802
        """Stream the lanes now and after each change."""
        said: lane_pb2.WatchLanesResponse | None = None
        while True:
            async with self._changed:
                while self._lanes is said:
                    await self._changed.wait()
                said = self._lanes
            yield said


def free_port() -> int:
    """A port of loopback, for a program that cannot choose one itself.

    Nobody listens on it, and no other process that asks here is given it while this one lives.

    Raises:
        OSError: none was found.
    """
    claims = Path(tempfile.gettempdir()) / f"serin-test-ports-{os.getuid()}"
    claims.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(range(_LOWEST_PORT, _HIGHEST_PORT + 1), 200):
        claim = os.open(claims / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)  # open until this process ends
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            os.close(claim)
        else:
            return port
    raise OSError(f"no free port was found between {_LOWEST_PORT} and {_HIGHEST_PORT}")
