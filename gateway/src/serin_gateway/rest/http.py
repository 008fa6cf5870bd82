"""HTTP/1.1 on a socket: uvicorn's protocol, with bounds on the size and time of everything that is not a body.

Knows nothing about applications or servers.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serin_gateway.rest.http_parser import RequestParser
from serin_gateway.rest.keepalive import STATE_KEY, Keepalive, asked_every_s

MAX_HEAD_BYTES = 65_536
MAX_FRAMING_BYTES = 262_144
"""Of what surrounds a chunked body: sizes, extensions, trailers. Each byte of the body allows for 8 more."""
HEAD_TIMEOUT_S = 10.0
REST_TIMEOUT_S = 30.0
"""For the rest of a request that has been answered already."""
MAX_UNREAD_BYTES = 64 << 20
"""Of a body that has been refused already this much is taken in and forgotten, so that its sender hears why."""
UNREAD_TIMEOUT_S = 60.0
"""A connection whose client takes nothing of a whole answer for this long is cut off."""
ABORT_KEY = "abort"
"""Where an application finds, in the `state` of its ASGI scope, what ends the connection at once: one that is merely
closed stays until its client has read what was written."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 27\r\n"
    b"connection: close\r\n\r\nthe request's head is large\n"
)


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser: RequestParser = RequestParser(self)  # type: ignore[assignment]
        self._is_in_head = True
        self._is_in_message = False
        self._num_head_bytes = 0
        self._num_body_bytes = 0
        self._num_framing_bytes = 0
        self._num_unread_bytes = 0
        self._num_body_bytes_in_data = 0
        self._timer: asyncio.TimerHandle | None = None
        self._keepalive: Keepalive | None = None
        self._unsent_timer: asyncio.TimerHandle | None = None
        self._num_unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it is given some seconds to say what it wants."""
        super().connection_made(transport)
        self._start_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        self._stop_keepalive()
        self._stop_looking_at_unsent()
        self.parser.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; what does not end is not collected for ever."""
        if self.timeout_keep_alive_task is not None and not self._is_in_message and not data.strip(b"\r\n"):
            return  # empty lines between requests are ignored (RFC 9112, 2.2), and buy no time
        self._num_body_bytes_in_data = 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        num_bytes = len(data) - self._num_body_bytes_in_data
        if self._is_in_head:
            self._num_head_bytes += num_bytes
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse()
        elif self._is_in_message:
            self._num_framing_bytes += num_bytes
            if self.cycle.response_complete:
                self._take_unread(len(data))
            elif self._num_framing_bytes > MAX_FRAMING_BYTES + 8 * self._num_body_bytes:
                self._refuse()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._num_head_bytes = self._num_body_bytes = self._num_framing_bytes = self._num_unread_bytes = 0
        self._start_timer(HEAD_TIMEOUT_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that comes behind the body (RFC 9110, 6.5) is nothing that anybody here asks for."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is complete.

        Raises:
            HttpParserError: it does not name one host (RFC 9112, 3.2).
        """
        num_hosts = sum(name == b"host" for name, _ in self.headers)
        if num_hosts != 1 and (num_hosts or self.parser.get_http_version() == "1.1"):
            raise httptools.HttpParserError(f"{num_hosts} Host headers")
        self._is_in_head = False
        self._stop_timer()
        before = self.cycle
        self.scope["state"][ABORT_KEY] = self.transport.abort
        super().on_headers_complete()
        if before is None or before.response_complete:  # else its answer has to wait for another one to end
            self._start_keepalive()

    def on_body(self, body: bytes) -> None:
        """Part of its body."""
        self._num_body_bytes += len(body)
        self._num_body_bytes_in_data += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._is_in_message = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written, which is not yet sent."""
        super().on_response_complete()
        self._look_later_at_unsent()

    def _look_later_at_unsent(self) -> None:
        self._stop_looking_at_unsent()
        self._num_unsent_bytes = self.transport.get_write_buffer_size()
        if self._num_unsent_bytes:
            self._unsent_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._look_at_unsent)

    def _look_at_unsent(self) -> None:
        is_all_written = self.transport.is_closing() or self.cycle.response_complete
        if is_all_written and self.transport.get_write_buffer_size() >= self._num_unsent_bytes:
            self.transport.abort()
        else:
            self._look_later_at_unsent()

    def _stop_looking_at_unsent(self) -> None:
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None

    def _take_unread(self, num_bytes: int) -> None:
        """The rest of a request that has been answered: so much of it, and so long."""
        self._num_unread_bytes += num_bytes
        if self._num_unread_bytes > MAX_UNREAD_BYTES:
            self.transport.close()
        elif self._timer is None:
            self._start_timer(REST_TIMEOUT_S)

    def _refuse(self) -> None:
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _start_keepalive(self) -> None:
        self._stop_keepalive()
        every_s = asked_every_s(self.headers)
        if every_s and self.scope["http_version"] == "1.1":  # interim responses are of this version
            self._keepalive = Keepalive(self.transport, self.cycle, every_s)
            self.scope["state"][STATE_KEY] = self._keepalive

    def _stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.close()
            self._keepalive = None

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
