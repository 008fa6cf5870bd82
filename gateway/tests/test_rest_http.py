"""HTTP/1.1 below the door: what is no body is bounded in bytes and time, and is read in one way only."""

import asyncio
import contextlib
import re
import socket

import pytest
from serin_gateway import outbox
from serin_gateway.rest import http
from serin_gateway.rest import server as server_module
from serin_gateway.testing import saying, small_catalog, small_lane

BODY = b'{"model": "small", "prompt": "hi"}'
ENDED = b"0\r\n\r\n"


class Wire:
    """One connection to a front."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, data: bytes) -> int:
        """Send, and read one whole response; its status."""
        self._writer.write(data)
        async with asyncio.timeout(60):
            head = await self._reader.readuntil(b"\r\n\r\n")
            await self._reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        return int(head.split()[1])

    async def send(self, data: bytes) -> None:
        """Send; the other side may have closed."""
        self._writer.write(data)
        await self._writer.drain()

    async def send_on(self) -> None:
        """Send 64 MB more."""
        for _ in range(1000):
            await self.send(b"y" * 65_536)

    async def closed(self) -> bytes:
        """Everything until the other side closes."""
        try:
            async with asyncio.timeout(60):
                return await self._reader.read()
        except ConnectionError:
            return b""


@pytest.fixture
async def connect():
    """Connects to fronts; what it opened is closed in the end."""
    opened = []

    async def to(front) -> Wire:
        opened.append(await asyncio.open_connection("127.0.0.1", front.server.port))
        return Wire(*opened[-1])

    yield to
    for _, writer in opened:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def chunked(key: str | None, behind: bytes = ENDED) -> bytes:
    """A request with a chunked body; what comes behind its chunk."""
    shown = b"" if key is None else b"Authorization: Bearer %b\r\n" % key.encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n" % shown
    return head + b"%x\r\n%b\r\n" % (len(BODY), BODY) + behind


async def test_a_trailer_is_no_header(front, connect):
    """A key behind the body is no key, though all of it came at once; other trailers do no harm."""
    key = front.key.encode()
    assert await (await connect(front)).ask(chunked(None, b"0\r\nAuthorization: Bearer %b\r\n\r\n" % key)) == 401
    assert await (await connect(front)).ask(chunked(front.key, b"0\r\nAuthorization: Bearer no\r\nX: y\r\n\r\n")) == 200


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"1;"], ids=["trailer", "extension"])
async def test_framing_is_bounded(front, connect, endless: bytes):
    """A trailer, or a chunk's extension, that does not end: 431 and closed, before it is collected."""
    wire = await connect(front)
    await wire.send(chunked(None, endless))
    with pytest.raises(ConnectionError):
        await wire.send_on()


async def test_small_chunks_are_no_attack(front, connect):
    """A body of chunks of one byte each has six bytes around every one."""
    body = b'{"model": "small", "prompt": "%b"}' % (b"h" * 100_000)
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    head = chunked(front.key).partition(b"\r\n\r\n")[0]
    assert await (await connect(front)).ask(head + b"\r\n\r\n" + pieces + ENDED) == 400  # too long for the model


LENGTH = b"Content-Length: %d\r\n" % len(BODY)
IN_CHUNKS = b"%x\r\n%b\r\n" % (len(BODY), BODY) + ENDED
LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n%b\r\n"
OFFERS = {
    "HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n",
    "web socket": b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
}


def offering(front, offer: bytes, framing: bytes) -> bytes:
    """The head of a completion whose client would rather speak something else."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % front.key.encode()
    return head + offer + framing + b"\r\n"


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(
    ("framing", "body"), [(LENGTH, BODY), (b"Transfer-Encoding: chunked\r\n", IN_CHUNKS)], ids=["length", "chunks"]
)
async def test_an_offer_to_upgrade_is_a_header_like_any_other(
    front, connect, offer: bytes, framing: bytes, body: bytes
):
    """Ignored, the body read as the head frames it, at once, later or byte by byte; the next request is the next."""
    wire = await connect(front)
    head = offering(front, offer, framing)
    assert await wire.ask(head + body) == 200
    await wire.send(head)
    assert await wire.ask(body) == 200
    for byte in head + body[:-1]:
        await wire.send(bytes((byte,)))
    assert await wire.ask(body[-1:]) == 200
    assert await wire.ask(LIVE % offer) == 200
    await wire.send((head + body) * 2 + LIVE % offer + LIVE % b"Connection: close\r\n")
    assert (await wire.closed()).count(b"HTTP/1.1 200 ") == 4


async def test_a_body_behind_an_offer_is_read_in_one_way(front, connect):
    """What is refused without the offer is refused with it, and nothing inside of a body is a request."""
    offer = OFFERS["HTTP/2"]
    inside = LIVE % b""
    framings = {
        LENGTH + b"Transfer-Encoding: chunked\r\n": b"HTTP/1.1 400 ",
        LENGTH * 2: b"HTTP/1.1 400 ",
        b"Transfer-Encoding: chunked, identity\r\n": b"HTTP/1.1 400 ",
        b"Connection: close\r\nContent-Length: %d\r\n" % len(inside): b"HTTP/1.1 400 ",
    }
    for framing, answer in framings.items():
        wire = await connect(front)
        await wire.send(offering(front, offer, framing) + inside)
        told = await wire.closed()
        assert (told.startswith(answer), told.count(b"HTTP/1.1 ")) == (True, 1), (framing, told)


async def test_nothing_is_read_behind_a_connect(front, connect):
    """What follows it is of no protocol that is spoken here."""
    wire = await connect(front)
    await wire.send(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + LIVE % b"")
    assert (await wire.closed()).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("hosts", [b"", b"Host: x\r\nHost: y\r\n"])
async def test_a_request_names_one_host(front, connect, hosts: bytes):
    """400 for none and for two (RFC 9112, 3.2), also where no key is needed; HTTP/1.0 may leave it out."""
    wire = await connect(front)
    await wire.send(b"GET /live HTTP/1.1\r\n%b\r\n" % hosts)
    assert (await wire.closed()).startswith(b"HTTP/1.1 400 ")
    wire = await connect(front)
    await wire.send(b"GET /live HTTP/1.0\r\n\r\n")
    assert (await wire.closed()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "x-api-key",
        "serin-lane",
        "serin-cascade",
        "idempotency-key",
        "x-session-id",
        "x-request-timeout",
    ],
)
async def test_what_decides_comes_once(front, name: str):
    """Of two, a proxy may have read the other one."""
    pairs = [("authorization", f"Bearer {front.key}"), (name, "1"), (name, "1")]
    response = await front.http.get("/v1/models", headers=pairs)
    assert (response.status_code, response.json()["error"]["param"]) == (400, name)


async def test_empty_lines_buy_no_time(fronts, connect, monkeypatch):
    """A connection that waits for a request is closed on time, whatever empty lines come meanwhile."""
    monkeypatch.setattr(server_module, "KEEP_ALIVE_S", 0.3)
    async with fronts() as front:
        wire = await connect(front)
        assert await wire.ask(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n") == 200
        await wire.send(b"\r\n")
        assert await wire.closed() == b""


async def test_who_reads_nothing_loses_the_connection(fronts, monkeypatch):
    """Of a stream and of a whole answer: neither the socket nor what was to be sent is kept until it is read."""
    monkeypatch.setattr(outbox, "SLOW_READER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(http, "UNREAD_TIMEOUT_S", 0.2)
    async with fronts(saying("x" * 200_000, piece=10_000)) as front:
        front.house.catalog.publish(small_catalog(small_lane(context_length=300_000)))
        front.server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what it accepts is made alike
        with contextlib.ExitStack() as stack:
            for more in (', "stream": true', ""):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", front.server.port))
                body = b'{"model": "small", "prompt": "hi", "max_tokens": 200000%b}' % more.encode()
                head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Api-Key: %b\r\nContent-Length: %d\r\n\r\n"
                client.send(head % (front.key.encode(), len(body)) + body)
            await front.house.journal.until_closed(2)
            async with asyncio.timeout(20):
                while front.server.num_connections:  # noqa: ASYNC110 - a connection's end is told nobody
                    await asyncio.sleep(0.01)


async def test_the_rest_of_an_answered_request_does_not_take_for_ever(front, connect, monkeypatch):
    """Its body trickles in behind the refusal: closed on time."""
    monkeypatch.setattr(http, "REST_TIMEOUT_S", 0.3)
    wire = await connect(front)
    assert await wire.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n") == 401
    await wire.send(b"y")
    assert await wire.closed() == b""


async def test_a_slow_head_is_cut_off(fronts, connect, monkeypatch):
    """A head that trickles in is not waited for, on a new connection or a used one."""
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 0.3)
    async with fronts() as front:
        fresh, used = await connect(front), await connect(front)
        assert await used.ask(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n") == 200
        for wire in (fresh, used):
            await wire.send(b"GET /live HT")
            assert await wire.closed() == b""
