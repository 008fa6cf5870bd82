"""The pages for machines: right answers, and limits for whoever does not speak properly."""

import asyncio
import json

import pytest
from serin_mesh.metrics_server import MAX_HEAD_BYTES, MetricsServer
from serin_mesh.readiness import Readiness


@pytest.fixture
async def page():
    """(readiness, function that sends raw bytes and gives (status, headers, body))."""
    stalled = [False]
    readiness = Readiness(probe=lambda: not stalled[0])
    async with MetricsServer("127.0.0.1", 0, readiness) as server:

        async def ask(request: str) -> tuple[int, str, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            if not answer:
                return 0, "", b""
            head, _, body = answer.partition(b"\r\n\r\n")
            return int(head.split()[1]), head.decode(), body

        readiness.stalled = stalled
        yield readiness, ask


def get(path: str, method: str = "GET") -> str:
    """A request for a page."""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_metrics_page(page) -> None:
    """Prometheus' text format."""
    status, head, body = await page[1](get("/metrics?x=1"))
    assert status == 200
    assert "text/plain; version=0.0.4" in head
    assert b"process_cpu_seconds_total" in body


async def test_ready_follows_readiness(page) -> None:
    """503 with what is being done until it is ready, and again when it drains."""
    readiness, ask = page
    readiness.starting("loading weights", 0.5)
    status, _, body = await ask(get("/ready"))
    assert (status, json.loads(body)) == (503, {"state": "starting", "activity": "loading weights", "progress": 0.5})
    readiness.ready()
    assert (await ask(get("/ready")))[0] == 200
    readiness.draining()
    assert (await ask(get("/ready")))[0] == 503


async def test_live_fails_only_when_it_no_longer_moves(page) -> None:
    """Starting and draining are alive; a stalled service should be restarted."""
    readiness, ask = page
    assert (await ask(get("/live")))[0] == 200
    readiness.ready()
    readiness.stalled[0] = True
    readiness.probe()
    assert (await ask(get("/live")))[0] == 503
    readiness.draining()
    assert (await ask(get("/live")))[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/other"), 404),
        (get("/metrics", "POST"), 405),
        ("hello\r\n\r\n", 400),
        ("GET /metrics HTTP/2\r\n\r\n", 400),
        ("GET /" + "x" * MAX_HEAD_BYTES + " HTTP/1.1\r\n\r\n", 0),
    ],
)
async def test_other_requests_are_refused(page, request_: str, status: int) -> None:
    """A wrong page, method or protocol is told so; an endless head is cut off."""
    try:
        got = (await page[1](request_))[0]
    except ConnectionResetError:
        got = 0
    assert got == status


async def test_head_has_no_body(page) -> None:
    """HEAD answers like GET without the body."""
    status, head, body = await page[1](get("/metrics", "HEAD"))
    assert (status, body) == (200, b"")
    assert "content-length: " in head


async def test_closing_ends_connections_that_wait() -> None:
    """Somebody who connected and says nothing does not hold a shutdown up."""
    async with MetricsServer("127.0.0.1", 0, Readiness()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
