"""HTTP/2 frames by hand (RFC 9113), for clients that no library would be. Knows no gRPC and no servers."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CANCEL = 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        head = struct.pack(">I", len(self.payload))[1:] + struct.pack(">BBI", self.kind, self.flags, self.stream)
        return head + self.payload


def opening() -> bytes:
    """What a connection begins with."""
    return PREFACE + Frame(SETTINGS, 0, 0, b"").encoded()


def call_headers(stream: int, path: str, extra: Iterable[tuple[str, str]] = (), *, flags: int = END_HEADERS) -> bytes:
    """The head of a gRPC call."""
    pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *extra,
    ]
    return Frame(HEADERS, flags, stream, b"".join(header(name, value) for name, value in pairs)).encoded()


def header(name: str, value: str) -> bytes:
    """A literal header that no table remembers (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def message(stream: int, data: bytes, *, flags: int = END_STREAM) -> bytes:
    """A message of a call."""
    return Frame(DATA, flags, stream, b"\0" + struct.pack(">I", len(data)) + data).encoded()


def reset(stream: int) -> bytes:
    """The end of a stream that nobody wants any more."""
    return Frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)).encoded()


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """What the other side sends, until it closes."""
    while True:
        try:
            head = await reader.readexactly(9)
            length = int.from_bytes(head[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            yield Frame(kind, flags, stream & 0x7FFFFFFF, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def _text(text: str) -> bytes:
    raw = text.encode("latin-1")
    return _number(len(raw), 7) + raw


def _number(value: int, bits: int) -> bytes:
    """An integer of HPACK (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = [most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])
