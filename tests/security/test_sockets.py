"""Floods on the ports of a running gateway: whoever asks beside them is answered, and nothing is left of them."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import pytest_asyncio
from harness.eventually import eventually
from harness.running_mesh import RunningMesh
from security import http2
from security.attack import TINY
from security.bystander import Bystander
from security.http2 import ACK, END_HEADERS, Frame
from serin.generation.v1 import sampling_pb2
from serin.inference.v1 import inference_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOOD_S = 0.8
BOUND_S = 5.0
"""Longest wait of a bystander on a machine that others use too; what was seen is printed."""
MEMORY_SLACK = 192 << 20
"""Half of it is for what other tests have the gateway load meanwhile: the detectors of its guards."""
GENERATE = "/serin.inference.v1.InferenceService/Generate"
PRIORITY = 2

Frames = Callable[[str], Iterator[bytes]]
"""What a hostile client of HTTP/2 sends without end, behind the opening; it has a key."""


def asked() -> bytes:
    """A small question."""
    sampling = sampling_pb2.SamplingParameters(max_tokens=1)
    return inference_pb2.GenerateRequest(model=TINY, prompt="x", sampling=sampling).SerializeToString()


def resets(key: str) -> Iterator[bytes]:
    """Calls that are taken back at once, of strangers."""
    for stream in count(1, 2):
        yield http2.call_headers(stream, GENERATE) + http2.reset(stream)


def known_resets(key: str) -> Iterator[bytes]:
    """The same, with a key and a question: work that has begun."""
    data, shown = asked(), [("authorization", f"Bearer {key}")]
    for stream in count(1, 2):
        yield http2.call_headers(stream, GENERATE, shown) + http2.message(stream, data) + http2.reset(stream)


def pings(key: str) -> Iterator[bytes]:
    """Pings, each of which is to be answered."""
    for number in count():
        yield Frame(http2.PING, 0, 0, number.to_bytes(8, "big")).encoded()


def own_settings(key: str) -> Iterator[bytes]:
    """Settings, each of which is to be acknowledged."""
    while True:
        yield Frame(http2.SETTINGS, 0, 0, b"\0\4" + (65_535).to_bytes(4, "big")).encoded()


def endless_headers(key: str) -> Iterator[bytes]:
    """A head that goes on and on."""
    yield http2.call_headers(1, GENERATE, flags=0)
    while True:
        yield Frame(http2.CONTINUATION, 0, 1, http2.header("x-a", "y" * 1000) * 8).encoded()


def empty_continuations(key: str) -> Iterator[bytes]:
    """A head of nothing that does not end."""
    yield http2.call_headers(1, GENERATE, flags=0)
    while True:
        yield Frame(http2.CONTINUATION, 0, 1, b"").encoded()


def empty_data(key: str) -> Iterator[bytes]:
    """A message of nothing that does not end."""
    yield http2.call_headers(1, GENERATE, [("authorization", f"Bearer {key}")])
    while True:
        yield Frame(http2.DATA, 0, 1, b"").encoded()


def priorities(key: str) -> Iterator[bytes]:
    """Streams that are moved about."""
    for stream in count(1, 2):
        yield Frame(PRIORITY, 0, stream, b"\0\0\0\0\x10").encoded()


def windows(key: str) -> Iterator[bytes]:
    """A window that grows by one."""
    while True:
        yield Frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\1").encoded()


def many_headers(key: str) -> Iterator[bytes]:
    """Calls of 3,000 headers each."""
    for stream in count(1, 2):
        block = b"".join(header for header in [http2.header(f"x-{at}", "y") for at in range(1500)])
        half = len(block) // 2
        yield http2.call_headers(stream, GENERATE, flags=0)
        yield Frame(http2.CONTINUATION, 0, stream, block[:half][:16_000]).encoded()
        yield Frame(http2.CONTINUATION, END_HEADERS, stream, block[half:][:16_000]).encoded()


def acknowledged(key: str) -> Iterator[bytes]:
    """Acknowledgements of what nobody sent."""
    while True:
        yield Frame(http2.SETTINGS, ACK, 0, b"").encoded()


FLOODS: list[Frames] = [
    resets, known_resets, pings, own_settings, endless_headers, empty_continuations, empty_data, priorities, windows,
    many_headers, acknowledged,
]  # fmt: skip


def flood(address: str, frames: Callable[[], Iterator[bytes]], seconds: float) -> tuple[int, int]:
    """Send as fast as the other side takes it, in a thread; pieces sent, and connections that it took."""
    host, _, port = address.rpartition(":")
    ends_at = time.monotonic() + seconds
    num_sent = num_connections = 0
    while time.monotonic() < ends_at:
        num_connections += 1
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(http2.opening())
            sending = frames()
            while time.monotonic() < ends_at:
                pieces = [next(sending) for _ in range(50)]
                connection.sendall(b"".join(pieces))
                num_sent += len(pieces)
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while connection.recv(65_536):
                        pass
                connection.settimeout(5)
    return num_sent, num_connections


@pytest_asyncio.fixture(loop_scope="module")
async def unharmed(mesh: RunningMesh, bystander: Bystander):
    """Looks at the gateway before and after a test: process, memory, open files, and how long others waited."""
    pid = mesh.members()["gateway"].pid
    await bystander.answers_again()
    before, num_files = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
    bystander.slowest_s = 0.0
    yield
    await bystander.answers_again()
    assert bystander.wrong == []
    print(f"slowest answer beside it: {bystander.slowest_s * 1000:.0f} ms")
    assert bystander.slowest_s < BOUND_S
    assert mesh.members()["gateway"].pid == pid
    assert resident(pid) - before < MEMORY_SLACK

    async def files() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    # Other tests have connections to this gateway too, but not hundreds.
    await eventually(files, lambda now: now < num_files + 40, "files of the gateway")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("frames", FLOODS, ids=lambda one: one.__name__)
async def test_a_flood_of_frames(mesh: RunningMesh, frames: Frames):
    """On the gRPC port, as fast as one client can send them; how fast that was is printed."""
    num_sent, num_connections = await asyncio.to_thread(flood, mesh.grpc, lambda: frames(mesh.key), FLOOD_S)
    print(f"{frames.__name__}: {num_sent / FLOOD_S:,.0f}/s over {num_connections} connections")
    assert num_sent


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("port", ["rest", "grpc"])
@pytest.mark.parametrize("said", [b"", b"POST /v1/chat/completions HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"], ids=len)
async def test_connections_that_say_nothing_more(mesh: RunningMesh, port: str, said: bytes):
    """200 of them at once, each with half a beginning."""
    async with connected(mesh.grpc if port == "grpc" else mesh.rest, 200) as opened:
        for _, writer in opened:
            writer.write(said)
        await asyncio.sleep(0.3)


@pytest.mark.usefixtures("unharmed")
async def test_bodies_that_trickle(mesh: RunningMesh):
    """100 requests with a key whose bodies come byte by byte: they wait, nobody else does."""
    async with connected(mesh.rest, 100) as opened:
        for _, writer in opened:
            writer.write(head(mesh.key, "Content-Length: 1000"))
        for _ in range(10):
            for _, writer in opened:
                writer.write(b" ")
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        (b"".join(b"x-%d: y\r\n" % at for at in range(10_000)), {413, 431}),
        (b"x: " + b"y" * 1_000_000 + b"\r\n", {413, 431}),
        (b"y" * 1_000_000, {400, 413, 431}),
    ],
    ids=["10,000 headers", "a header of a megabyte", "a name of a megabyte"],
)
async def test_floods_of_headers(mesh: RunningMesh, lines: bytes, statuses: set[int]):
    """Refused before they are whole."""
    answer = b""
    async with connected(mesh.rest) as ((reader, writer),):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
                await writer.drain()
                answer = await reader.readline()
    # A refusal can be lost where more comes behind it: then the connection is gone, which is one too.
    assert answer == b"" or int(answer.split()[1]) in statuses


@pytest.mark.usefixtures("unharmed")
async def test_a_hundred_megabytes_are_not_taken_in(mesh: RunningMesh):
    """A body beyond the limit is refused while it comes; its sender is cut off before its end."""
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    num_sent = 0
    async with connected(mesh.rest) as ((reader, writer),):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                writer.write(head(mesh.key, "Transfer-Encoding: chunked"))
                for _ in range(100):
                    writer.write(chunk)
                    await writer.drain()
                    num_sent += 1
        print(f"{num_sent} MiB were sent before the end")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                assert await reader.readline() in (b"", b"HTTP/1.1 413 Request Entity Too Large\r\n")
    assert num_sent < 100


def head(key: str, framing: str) -> bytes:
    """The head of a request with a body."""
    lines = ("POST /v1/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", framing)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


@asynccontextmanager
async def connected(
    address: str, number: int = 1
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """So many connections, closed in the end."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(number)))
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.close()
        for _, writer in opened:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
