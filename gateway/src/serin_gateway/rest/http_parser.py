"""Requests as httptools reads them, except that an offer to upgrade is a header like any other.

llhttp takes whatever follows a head with `Upgrade` for another protocol. Nobody takes such offers here, as a server may
(RFC 9110, 7.8), so that what follows is the body, as the head frames it, and then the next request. Knows nothing about
what requests are for.
"""

from typing import Any

import httptools

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class RequestParser:
    """What httptools' parser of the same methods is, for one connection.

    Args:
        protocol: told of requests by httptools' callbacks.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._framing: list[tuple[bytes, bytes]] = []
        self._is_told_head = False
        self._parser = self._fresh()

    def close(self) -> None:
        """No more data: lets go of the protocol, which httptools' parser would hold until it is collected."""
        self._protocol = None
        del self._parser

    def feed_data(self, data: bytes) -> None:
        """Bytes have come.

        Raises:
            HttpParserError: they are no request, or one that could be read in two ways.
            HttpParserUpgrade: behind a CONNECT, whose rest is of no protocol that is known here.
        """
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_cut_short():
                    raise
                rest = rest[upgrade.args[0] :]
                self._read_on()
            else:
                return

    def get_method(self) -> bytes:
        """Of the request that is read now."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """Of the request that is read now."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """Whether another request may follow this one."""
        return self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Never."""
        return False

    def on_message_begin(self) -> None:
        """Called by httptools, as what follows."""
        if not self._is_told_head:
            self._framing = []
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Part of a target."""
        if not self._is_told_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if not self._is_told_head:
            if name.lower() in _FRAMING:
                self._framing.append((name, value))
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if not self._is_told_head:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; one that offers an upgrade only seems to be."""
        if not self._is_cut_short():
            self._protocol.on_message_complete()

    def _is_cut_short(self) -> bool:
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def _read_on(self) -> None:
        """Have the request's body read: by a parser that has seen the same head without the offer."""
        head = [b"%b / HTTP/%b" % (self._parser.get_method(), self._parser.get_http_version().encode())]
        head += [b"%b: %b" % header for header in self._framing]
        self._parser = self._fresh()
        self._is_told_head = True
        try:
            self._parser.feed_data(b"\r\n".join([*head, b"", b""]))
        finally:
            self._is_told_head = False

    def _fresh(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As uvicorn has it: what is sent behind the last request must not take its answer away.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser
