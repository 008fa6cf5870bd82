"""A call to another service: awaited, iterated, read and written like any grpc.aio call.

Failures arrive as MeshError, translated once; the lane of the answer is remembered. A call is cancelled with the task
that waits for it, and as soon as nobody holds it any more: a handler that is closed between two messages leaves nothing
running downstream. Knows nothing about deadlines or metadata.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Self

import grpc

from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason, from_rpc_error


class MeshCall(grpc.aio.Call):
    """Wraps one call of any of the four kinds."""

    def __init__(self, call: Any, lanes: dict[str, str], lane_model: str | None) -> None:
        self._call = call
        self._lanes = lanes
        self._lane_model = lane_model
        self._responses: AsyncIterator[Any] | None = None
        self._is_lane_known = lane_model is None

    def __del__(self) -> None:
        # grpc.aio's own calls are parts of reference cycles once they are iterated, and would run on until the
        # garbage collector comes by. This wrapper is in no cycle, so it goes with its last user.
        call = self.__dict__.get("_call")
        if call is not None and not call.done():
            with contextlib.suppress(RuntimeError):  # the event loop is closed: the call ended with it
                call.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    def __aiter__(self) -> Self:
        if self._responses is None:
            self._responses = self._call.__aiter__()
        return self

    async def __anext__(self) -> Any:
        assert self._responses is not None, "iterate the call with `async for`"
        try:
            response = await self._responses.__anext__()
        except grpc.RpcError as error:
            raise self._translate(error) from error
        if not self._is_lane_known:
            await self._learn_lane()
        return response

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            raise self._translate(error) from error
        if not self._is_lane_known:
            await self._learn_lane()
        return response

    async def write(self, request: Any) -> None:
        """Send a request on a request stream.

        Raises:
            MeshError: the call has failed.
            asyncio.InvalidStateError: the call has ended well, or its requests were ended before.
        """
        try:
            await self._call.write(request)
        except grpc.RpcError as error:
            raise self._translate(error) from error
        except asyncio.InvalidStateError:
            if self._call.done() and await self._call.code() is not grpc.StatusCode.OK:
                raise self._translate(await self._failure()) from None
            raise

    async def done_writing(self) -> None:
        """End the request stream."""
        try:
            await self._call.done_writing()
        except grpc.RpcError as error:
            raise self._translate(error) from error

    def cancel(self) -> bool:
        """Cancel the call; False if it is over already."""
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the call is over."""
        return bool(self._call.done())

    def time_remaining(self) -> float | None:
        """Seconds until the call's deadline; None: it has none."""
        left: float | None = self._call.time_remaining()
        return left

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call is over."""
        this = weakref.ref(self)  # or the callback would keep the call alive, see __del__
        self._call.add_done_callback(lambda call: callback(this() or call))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What the server sent before its first response."""
        metadata: grpc.aio.Metadata = await self._call.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What the server sent after its last response."""
        metadata: grpc.aio.Metadata = await self._call.trailing_metadata()
        return metadata

    async def code(self) -> grpc.StatusCode:
        """The status, once the call is over."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """The status' sentence, once the call is over."""
        details: str = await self._call.details()
        return details

    async def wait_for_connection(self) -> None:
        """Wait until the call has a connection."""
        try:
            await self._call.wait_for_connection()
        except grpc.RpcError as error:
            raise self._translate(error) from error

    async def _result(self) -> Any:
        try:
            response = await self._call
        except grpc.RpcError as error:
            raise self._translate(error) from error
        if not self._is_lane_known:
            await self._learn_lane()
        return response

    async def _learn_lane(self) -> None:
        self._is_lane_known = True
        assert self._lane_model is not None
        for key, value in await self._call.initial_metadata() or ():
            if key == LANE_KEY and isinstance(value, str):
                self._lanes[self._lane_model] = value

    async def _failure(self) -> grpc.aio.AioRpcError:
        call = self._call
        metadata = await call.initial_metadata(), await call.trailing_metadata()
        return grpc.aio.AioRpcError(await call.code(), *metadata, await call.details())

    def _translate(self, error: grpc.RpcError) -> MeshError:
        translated = from_rpc_error(error)
        if translated.reason is Reason.LANE_GONE and self._lane_model is not None:
            self._lanes.pop(self._lane_model, None)
        return translated
