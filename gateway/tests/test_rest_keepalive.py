"""Signs of life over REST: who asks for them hears that a gateway waits, and nothing of it is part of an answer."""

import asyncio
import contextlib
import json

import pytest
from serin_gateway.rest import http
from serin_gateway.rest.keepalive import asked_every_s
from serin_gateway.testing import saying

INTERIM = b"HTTP/1.1 199 Working\r\n\r\n"
COMMENT = b"3\r\n:\n\n\r\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """Fifty times as often as is asked for."""
    monkeypatch.setattr(http, "asked_every_s", lambda headers: (asked_every_s(headers) or 0) / 50)


def asking(front, *lines: str, version: str = "1.1", **body) -> bytes:
    """A chat completion on the wire."""
    content = json.dumps({"model": "small", "messages": [{"role": "user", "content": "hi"}], **body}).encode()
    head = (f"POST /v1/chat/completions HTTP/{version}", "host: x", f"authorization: Bearer {front.key}", *lines)
    return "\r\n".join([*head, f"content-length: {len(content)}", "", ""]).encode() + content


@contextlib.asynccontextmanager
async def sent(front, *requests: bytes):
    """One connection on which requests were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
    writer.write(b"".join(requests))
    try:
        async with asyncio.timeout(60):
            yield reader
    finally:
        writer.close()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Everything until the connection closes."""
    return await reader.read()


async def test_interim_responses_come_before_an_answer(front):
    """As often as the answer takes; then the answer, whole, and none for the next request, which asks for none."""
    workers = front.house.workers
    workers.hold.clear()
    last = asking(front, "connection: close")
    async with sent(front, asking(front, "serin-keepalive: 1"), last) as reader:
        for _ in range(3):
            assert await reader.readexactly(len(INTERIM)) == INTERIM
        workers.hold.set()
        answers = (await rest_of(reader)).replace(INTERIM, b"")
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b'"content":"hello"') == 2
    assert not answers.partition(b"HTTP/1.1 200 ")[0]


@pytest.mark.parametrize("key", [(), ("idempotency-key: mine",)], ids=["plain", "repeatable"])
async def test_comments_come_between_the_events_of_a_stream(fronts, key: tuple[str, ...]):
    """While it has nothing to say; its events are as without, and nobody gets comments who asks again."""
    async with fronts(saying("y" * 500)) as front:
        workers = front.house.workers
        ask = asking(front, *key, "connection: close", "serin-keepalive: 1", stream=True, max_tokens=500)
        async with sent(front, ask) as reader:
            heard = await reader.readuntil(b"data: ")
            workers.hold.clear()
            heard += await reader.readuntil(COMMENT)
            heard += await reader.readuntil(COMMENT)
            workers.hold.set()
            heard += await rest_of(reader)
        body = unchunked(heard.rpartition(b"text/event-stream")[2].partition(b"\r\n\r\n")[2])
        assert b"\n\n:\n\n" in body
        assert all(event == b":" or event.startswith(b"data: {") for event in body.split(b"\n\n")[:-2])
        assert body.endswith(b"data: [DONE]\n\n")
        assert sum(len(text_of(event)) for event in body.split(b"\n\n")) == 500
        if key:
            async with sent(front, asking(front, *key, "connection: close", stream=True, max_tokens=500)) as reader:
                again = unchunked((await rest_of(reader)).partition(b"\r\n\r\n")[2])
            assert again == body.replace(b":\n\n", b"")


def unchunked(data: bytes) -> bytes:
    """A chunked body's content."""
    content = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            return content
        content += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


def text_of(event: bytes) -> str:
    """The text of one event of a stream."""
    if not event.startswith(b"data: {"):
        return ""
    choices = json.loads(event.removeprefix(b"data: "))["choices"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_request_that_waits_for_another_gives_no_sign(front):
    """Pipelined: a response to the second one would be taken for the first one's."""
    workers = front.house.workers
    workers.hold.clear()
    second = asking(front, "serin-keepalive: 1", "connection: close")
    async with sent(front, asking(front), second) as reader:
        await workers.until_running(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.2)
        workers.hold.set()
        assert (await rest_of(reader)).count(b"HTTP/1.1 200 ") == 2


async def test_http_1_0_knows_no_interim_responses(front):
    """Nothing but the answer."""
    workers = front.house.workers
    workers.hold.clear()
    async with sent(front, asking(front, "serin-keepalive: 1", version="1.0")) as reader:
        await workers.until_running(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.2)
        workers.hold.set()
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_leaves_is_still_noticed(front):
    """Signs of life do not keep the work of one that is gone."""
    workers = front.house.workers
    workers.hold.clear()
    async with sent(front, asking(front, "serin-keepalive: 1")) as reader:
        await reader.readexactly(len(INTERIM))
    await workers.until_running(0)


@pytest.mark.parametrize(
    ("value", "every_s"), [(b"2", 2), (b"60", 60), (b"0", 0), (b"61", 0), (b"-1", 0), (b"1.5", 0), (b"", 0), (b"x", 0)]
)
def test_what_is_asked_for(value: bytes, every_s: int):
    """Whole seconds from 1 to 60; anything else is none."""
    assert asked_every_s([(b"host", b"x"), (b"serin-keepalive", value)]) == every_s
    assert asked_every_s([(b"host", b"x")]) is None


@pytest.mark.parametrize("value", ["0", "61", "1.5", "", "soon"])
async def test_what_is_no_such_time_is_refused(front, value: str):
    """By the header's name: a proxy that was never given signs would take a gateway that waits for one that hangs."""
    answer = await front.http.get("/v1/models", headers={"serin-keepalive": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "serin-keepalive")
