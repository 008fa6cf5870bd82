"""``grpc.health.v1`` for one server, following its readiness.

Knows nothing about what is served: ``""`` and every name it is told are answered alike.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from serin_mesh.errors import MeshError, Reason
from serin_mesh.readiness import Readiness

Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Says SERVING while the service is ready and NOT_SERVING before and after."""

    def __init__(self, names: Iterable[str], readiness: Readiness) -> None:
        self._names = ("", *names)
        self._readiness = readiness

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method's name in the contract
        """Health now.

        Raises:
            MeshError: NOT_FOUND, no such service is served here.
        """
        if request.service not in self._names:
            raise MeshError(Reason.NOT_FOUND, f"served here: {', '.join(self._names[1:])}")
        return Status(status=self._status())

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - as above
        """Health now and after each change."""
        if request.service not in self._names:
            yield Status(status=Status.SERVICE_UNKNOWN)
            await asyncio.Event().wait()  # the contract: the name may be served one day
        changed = asyncio.Event()
        forget = self._readiness.watch(lambda _: changed.set())
        said = None
        try:
            while True:
                changed.clear()
                status = self._status()
                if status != said:
                    yield Status(status=status)
                    said = status
                await changed.wait()
        finally:
            forget()

    def _status(self) -> Any:
        return Status.SERVING if self._readiness.is_ready else Status.NOT_SERVING
