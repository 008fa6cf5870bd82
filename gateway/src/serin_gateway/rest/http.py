"""HTTP/1.1 on a socket: uvicorn's protocol, with bounds on the size and time of a request's head.

Knows nothing about applications or servers.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
HEAD_TIMEOUT_S = 10.0
MAX_UNREAD_BYTES = 64 << 20
"""Of a body that has been refused already this much is taken in and forgotten, so that its sender hears why."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 27\r\n"
    b"connection: close\r\n\r\nthe request's head is large\n"
)


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_in_head = True
        self._num_head_bytes = 0
        self._num_unread_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it is given some seconds to say what it wants."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; a head that does not end is not collected for ever."""
        super().data_received(data)
        if self.cycle is not None and self.cycle.response_complete and not self._is_in_head:
            self._num_unread_bytes += len(data)
            if self._num_unread_bytes > MAX_UNREAD_BYTES:
                self.transport.close()
        if self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = True
        self._num_head_bytes = self._num_unread_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
