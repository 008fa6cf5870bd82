"""A service with one method of each kind, whose behaviour a test chooses by the request's text."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from serin_mesh.errors import MeshError, Reason

SERVICE = "serin.test.v1.EchoService"


class Echo:
    """Echoes bytes. ``fail`` raises a MeshError, ``crash`` a foreign exception, ``hang`` waits for ever."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.contexts: list[Any] = []
        self.seen: dict[str, Any] = {}

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "ReadWrite": grpc.stream_stream_rpc_method_handler(self.read_write),
            "WatchThings": grpc.unary_stream_rpc_method_handler(self.stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    async def unary(self, request: bytes, context: Any) -> bytes:
        """The request back."""
        self.contexts.append(context)
        await self._behave(request)
        return request

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """The request three times, then whatever it asks for."""
        self.contexts.append(context)
        for _ in range(3):
            yield request
        await self._behave(request)

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """All requests, joined by commas."""
        collected = [request async for request in requests]
        await self._behave(collected[-1])
        return b",".join(collected)

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each request back."""
        async for request in requests:
            await self._behave(request)
            yield request

    async def read_write(self, _: Any, context: Any) -> None:
        """The same by the other style that gRPC has."""
        while (request := await context.read()) is not grpc.aio.EOF:
            await self._behave(request)
            await context.write(request)

    async def _behave(self, request: bytes) -> None:
        self.started.set()
        if request.startswith(b"fail"):
            raise MeshError(Reason.PARAMETER_INVALID, "top_p: 3: accepted: 0..1", parameter="top_p")
        if request.startswith(b"crash"):
            raise ValueError(f"cannot digest {request!r}")
        if request.startswith(b"hang"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


class EchoStub:
    """Callables for Echo on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.stream = channel.unary_stream(f"/{SERVICE}/Stream")
        self.collect = channel.stream_unary(f"/{SERVICE}/Collect")
        self.chat = channel.stream_stream(f"/{SERVICE}/Chat")
        self.read_write = channel.stream_stream(f"/{SERVICE}/ReadWrite")
        self.watch = channel.unary_stream(f"/{SERVICE}/WatchThings")


@pytest.fixture
def echo() -> Echo:
    """The service, fresh."""
    return Echo()


@pytest.fixture
def stub_of() -> type[EchoStub]:
    """Makes callables on a channel."""
    return EchoStub


@pytest.fixture(autouse=True)
def quiet_logs():
    """Logs of one test never reach another."""
    with structlog.testing.capture_logs() as lines:
        yield lines
