"""Calls that arrive inside the stream of another one, and are served as if each had come by itself.

Each passes the layers of the server around it: its own identity, deadline, lane, trace, log line and counters. Knows
nothing about the messages that carry them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc

from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason, from_status
from serin_mesh.interceptors.onion import serving_onion
from serin_mesh.interceptors.outcome import failure_of
from serin_mesh.interceptors.rpc import Rpc

R = Any
"""What a carried call asks."""


class CarriedCalls:
    """Serves the calls of one stream. Made by the handler of that stream, whose caller is theirs.

    Args:
        method: that they are calls of, for counters and logs: ``/package.Service/Method``.
        function: serves one; what it answers, it says by itself.
        carrier: context of the stream.
    """

    def __init__(
        self,
        method: str,
        function: Callable[[R], Awaitable[None]],
        carrier: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        async def innermost(rpc: Rpc) -> None:
            await function(rpc.request)

        self._method = method
        self._carrier = carrier
        self._handle = serving_onion().around(innermost)

    async def serve(
        self, request: R, metadata: Mapping[str, str], timeout_s: float | None, accepted: Callable[[str], None]
    ) -> MeshError | None:
        """Serve one call; returns the failure that it ended with, if it did, be it a fault of a layer itself.

        Args:
            request: what is asked.
            metadata: what came with it, as the metadata of a call of its own.
            timeout_s: seconds that it has; None: no deadline came with it.
            accepted: told the lane, when the layers have let it in; not told where none is known.
        """
        context = _CarriedContext(self._carrier, metadata, timeout_s, accepted)
        rpc = Rpc.arrived(self._method, request, context)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(timeout_s) as limit:
                await self._handle(rpc)
        except grpc.aio.AbortError:
            return context.failure
        except MeshError as error:  # no layer is there to send it
            return error
        except Exception as error:  # noqa: BLE001 - no layer around the one that failed will translate it
            if isinstance(error, TimeoutError) and limit.expired():
                return MeshError(Reason.DEADLINE_EXCEEDED, f"not finished within {timeout_s:g} s")
            return failure_of(rpc, error)
        return None


class _CarriedContext:
    """What layers want of a call's context."""

    def __init__(
        self,
        carrier: "grpc.aio.ServicerContext[Any, Any]",
        metadata: Mapping[str, str],
        timeout_s: float | None,
        accepted: Callable[[str], None],
    ) -> None:
        self.failure: MeshError | None = None
        self._carrier = carrier
        self._metadata = metadata
        self._deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._accepted = accepted

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._metadata.items())

    def auth_context(self) -> Any:
        return self._carrier.auth_context()

    def peer(self) -> str:
        return self._carrier.peer()

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def code(self) -> grpc.StatusCode | None:
        return self.failure.status.grpc if self.failure else None

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._accepted(dict(metadata).get(LANE_KEY, ""))

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.failure = from_status(status)
        raise grpc.aio.AbortError
