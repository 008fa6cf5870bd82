"""Broken HTTP on a real front: nothing but refusals comes of it, good requests are answered, no connection is kept."""

import asyncio
import contextlib
import gc
import os
import random
import re
from collections.abc import Callable

import pytest
from harness.eventually import eventually
from security.attack import Attack, completion
from security.doors import Doors, open_doors
from security.fuzzing import LENGTHS, rounds
from serin_gateway.testing import saying

BURST = 24
"""Connections at once."""
PATIENCE_S = 0.3
"""How long an answer is waited for that may never come: half a request is none."""
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
BODY = b'{"model": "small", "prompt": "hi"}'
STREAM = b'{"model": "small", "prompt": "hi", "stream": true}'

Mutation = Callable[[random.Random, bytes], bytes]


def good(key: str) -> list[bytes]:
    """Requests that are right."""
    head = b"Host: x\r\nAuthorization: Bearer %b\r\n" % key.encode()
    post = b"POST /v1/completions HTTP/1.1\r\n" + head
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    return [
        b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + head + b"\r\n",
        b"HEAD /v1/models HTTP/1.1\r\n" + head + b"Connection: close\r\n\r\n",
        post + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
        post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        post + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        post + b"Content-Length: %d\r\n\r\n" % len(STREAM) + STREAM,
    ]


def cut(rng: random.Random, data: bytes) -> bytes:
    """Its beginning."""
    return data[: rng.randrange(len(data) + 1)]


def doubled(rng: random.Random, data: bytes) -> bytes:
    """A piece of it twice."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * rng.choice((1, 1, 1, 50)) + data[end:]


def dropped(rng: random.Random, data: bytes) -> bytes:
    """Without a piece."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(1, 12) :]


def changed(rng: random.Random, data: bytes) -> bytes:
    """With other bytes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        if out:
            out[rng.randrange(len(out))] = rng.choice(
                (0, 9, 10, 13, 32, 58, 59, 48, 57, 0x80, 0xFF, rng.randrange(256))
            )
    return bytes(out)


def swapped(rng: random.Random, data: bytes) -> bytes:
    """With two pieces in each other's place."""
    first, second, third = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def lengthened(rng: random.Random, data: bytes) -> bytes:
    """With a giant header, or very many."""
    line = rng.choice(
        (b"X: " + b"y" * rng.choice((100, 40_000, 80_000)) + b"\r\n", b"X: y\r\n" * rng.choice((90, 2000)))
    )
    return data.replace(b"\r\n", b"\r\n" + line, 1)


def wrong_length(rng: random.Random, data: bytes) -> bytes:
    """With another length, one more length, or a coding."""
    line = rng.choice(
        [b"Content-Length: %d" % rng.randrange(200), b"Content-Length: -1", b"Content-Length: 5, 5",
         b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Content-Length: 99999999999999999999"]
    )  # fmt: skip
    if rng.random() < 0.5:
        return re.sub(rb"Content-Length: [0-9]+", line, data)
    return data.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n", 1)


def other_ends(rng: random.Random, data: bytes) -> bytes:
    """With other ends of lines."""
    return data.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ")), rng.randrange(1, 6))


def noise(rng: random.Random, data: bytes) -> bytes:
    """With random bytes in it."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 400)) + data[at:]


MUTATIONS: list[Mutation] = [cut, doubled, dropped, changed, swapped, lengthened, wrong_length, other_ends, noise]


def broken(rng: random.Random, requests: list[bytes]) -> bytes:
    """One to three requests, one behind the other, each with up to three things wrong."""
    out = b""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(requests)
        for _ in range(rng.randrange(4)):
            data = rng.choice(MUTATIONS)(rng, data)
        out += data
    return out


async def answered(port: int, data: bytes, rng: random.Random) -> bytes:
    """Everything that comes back within some patience; in pieces, now and then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            if rng.random() < 0.2:
                middle = rng.randrange(len(data) + 1)
                writer.write(data[:middle])
                await asyncio.sleep(0.01)
                data = data[middle:]
            writer.write(data)
            await writer.drain()
            if rng.random() < 0.1:
                return came  # gone without a word
            while True:
                async with asyncio.timeout(PATIENCE_S):
                    piece = await reader.read(65_536)
                if not piece:
                    break
                came += piece
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return came


def judge(came: bytes) -> None:
    """Whether what came is answers, and none of them a fault of ours."""
    statuses = [int(one) for one in STATUS_LINE.findall(came)]
    assert came == b"" or came.startswith(b"HTTP/1.1 "), came[:200]
    assert all(status < 500 for status in statuses), came[:500]
    assert b"Traceback" not in came
    assert b'"INTERNAL"' not in came


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_broken_http(seconds: float):
    """Bursts of it, and a good request behind each; in the end there are as many open files as at first."""
    async with open_doors(script=saying("hello")) as doors:
        requests = good(await doors.house.key())
        await all_is_well(doors)
        num_files = open_files()
        num_connections, codes = 0, set()
        for seed in rounds(seconds):
            rng = random.Random(seed)
            burst = [broken(rng, requests) for _ in range(BURST)]
            each = [random.Random(rng.random()) for _ in burst]
            for came in await asyncio.gather(
                *(answered(doors.rest, data, one) for data, one in zip(burst, each, strict=True))
            ):
                judge(came)
                codes |= set(STATUS_LINE.findall(came))
            num_connections += BURST
            await all_is_well(doors)
        print(f"{num_connections} connections, statuses {sorted(codes)}")
        assert {b"200", b"400"} <= codes
        await eventually(count_files, lambda count: count <= num_files, "no connection is kept")
        assert all(one.reason != "INTERNAL" for one in doors.house.journal.receipts)


async def test_right_requests_are_right():
    """Without mutations each is answered with 200: the fuzzer starts from something."""
    async with open_doors(script=saying("hello")) as doors:
        rng = random.Random(1)
        for data in good(await doors.house.key()):
            came = b""
            while not came:  # one in ten leaves without a word
                came = await answered(doors.rest, data, rng)
            assert STATUS_LINE.findall(came.replace(b"HTTP/1.1 100 Continue", b"")) == [b"200"], came


async def all_is_well(doors: Doors) -> None:
    """A good request is answered rightly."""
    outcome = await doors.senders.send(Attack("fuzz", "good", completion(model="small")))
    assert (outcome.status, '"text":"he"' in outcome.message) == (200, True), outcome


def open_files() -> int:
    """Of this process, client and server together."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def count_files() -> int:
    """The same, as something to wait for."""
    return open_files()
