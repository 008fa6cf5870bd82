"""The client's end of one HTTP exchange: its body in, our response out, and whether it is still there.

Bounded in bytes and time both ways. Knows nothing about what is exchanged.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any

from serin_mesh.errors import MeshError, Reason

from serin_gateway import outbox
from serin_gateway.rest.http import ABORT_KEY
from serin_gateway.rest.keepalive import STATE_KEY, Keepalive

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

BODY_TIMEOUT_S = 30.0
PAGES_FOR_PEOPLE = (b"/docs", b"/openapi.json")
EVENTS = b"text/event-stream"


class ClientGone(Exception):
    """The client closed the connection, or stopped reading for too long."""


class Client:
    """One exchange with a client.

    Args:
        scope, receive, send: as ASGI gives them.
        headers: sent with every response of this exchange; may be added to until the response starts.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        self.scope = scope
        self.headers = headers
        self.query: Mapping[str, Sequence[str]] = {}
        """All values of each parameter of its query string that the endpoint knows; of others it is never told."""
        self.has_started = False
        self.last_written = b""
        """The latest part of a stream."""
        self._receive = receive
        self._send = send
        self._keepalive: Keepalive | None = scope.get("state", {}).get(STATE_KEY)
        self._abort: Callable[[], None] | None = scope.get("state", {}).get(ABORT_KEY)

    @property
    def is_browser(self) -> bool:
        """True for pages that people open in a browser, which knows `Authorization: Basic` alone."""
        return self.scope["raw_path"] in PAGES_FOR_PEOPLE

    @property
    def speaks_anthropic(self) -> bool:
        """True for clients of the Anthropic API: all of its SDKs name the version that they know."""
        return self.header(b"anthropic-version") is not None

    def header(self, name: bytes) -> str | None:
        """The first header of this (lower case) name."""
        for key, value in self.scope["headers"]:
            if key == name:
                text: str = value.decode("latin-1")
                return text
        return None

    async def read_body(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            MeshError: BODY_TOO_LARGE, as soon as that is known; MALFORMED_BODY, it is compressed or too slow.
            ClientGone: it ended early.
        """
        if (self.header(b"content-encoding") or "identity") != "identity":
            raise MeshError(
                Reason.PARAMETER_UNSUPPORTED, "content-encoding: send the body as it is", parameter="content-encoding"
            )
        declared = self.header(b"content-length") or "0"
        if not declared.isdecimal() or int(declared[:20]) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await self._read(max_bytes)
        except TimeoutError:
            self.headers.append((b"connection", b"close"))
            raise MeshError(Reason.MALFORMED_BODY, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None

    async def start(self, status: int, headers: Headers) -> None:
        """The head of a response; its body is what is written then."""
        self.has_started = True
        if self._keepalive is not None and any(value.startswith(EVENTS) for _, value in headers):
            self._keepalive.announce_events()
        await self._send({"type": "http.response.start", "status": status, "headers": self.headers + headers})

    async def respond(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        """A whole response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [(b"content-type", content_type), length])
        await self._write(body, more=False)

    async def start_stream(self) -> None:
        """Begin a response of server-sent events."""
        await self.start(200, [(b"content-type", EVENTS + b"; charset=utf-8"), (b"cache-control", b"no-cache")])

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Part of a stream; ``more=False`` ends it.

        Raises:
            ClientGone: the client takes nothing any more.
        """
        self.last_written = data or self.last_written
        await self._write(data, more=more)

    def watched(self) -> "Watch":
        """A block that is cancelled as soon as the client is gone; it then raises :class:`ClientGone`."""
        return Watch(self._receive)

    async def _write(self, data: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(outbox.SLOW_READER_TIMEOUT_S):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            if self._abort is not None:
                self._abort()  # what it was written would be kept until it is read
            raise ClientGone("the client has stopped reading") from None
        if self._keepalive is not None:
            self._keepalive.spoke()

    async def _read(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        num_bytes = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left before its request was complete")
            part: bytes = message.get("body", b"")
            num_bytes += len(part)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(max_bytes: int) -> MeshError:
    return MeshError(Reason.BODY_TOO_LARGE, f"the body is larger than {max_bytes} bytes")


class Watch:
    """Cancels the block it surrounds once the client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> None:
        self._surrounded = asyncio.current_task()
        self._task = asyncio.create_task(self._wait())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        if not self._is_gone:
            await asyncio.wait((self._task,))
            return
        assert self._surrounded is not None
        self._surrounded.uncancel()
        if error is None:  # it was over anyway, but its cancellation has not arrived yet
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if error is None or isinstance(error, asyncio.CancelledError):
            raise ClientGone("the client closed the connection") from None

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        assert self._surrounded is not None
        self._surrounded.cancel()
