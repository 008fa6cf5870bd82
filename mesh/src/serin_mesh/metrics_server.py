"""A small HTTP/1.1 server for machines that look after processes: ``/metrics``, ``/live``, ``/ready``.

Answers GET and HEAD, one request a connection, with limits on size and time. Knows nothing about what is measured.
"""

import asyncio
import json
from collections.abc import Callable

from serin_mesh.metrics import CONTENT_TYPE, scrape
from serin_mesh.readiness import Readiness, State

MAX_HEAD_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 64

Answer = tuple[str, str, bytes]


class MetricsServer:
    """Serves the three pages on one port while it is entered."""

    def __init__(self, host: str, port: int, readiness: Readiness) -> None:
        self._host, self._port = host, port
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pages: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: ("200 OK", CONTENT_TYPE, scrape()),
            "/live": self._live,
            "/ready": self._ready,
        }

    @property
    def port(self) -> int:
        """Port that it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> "MetricsServer":
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=MAX_HEAD_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._slots.locked():
                async with self._slots, asyncio.timeout(REQUEST_TIMEOUT_S):
                    await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the scraper went away or does not speak HTTP: nothing is owed to it
        except asyncio.CancelledError:
            pass  # closing; asyncio's own callback would report the cancelled task as an error
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        status, kind, body = self._answer(words)
        head_lines = f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close"
        writer.write("\r\n".join((*head_lines, "", "")).encode())
        if words[0] != "HEAD":
            writer.write(body)
        await writer.drain()

    def _answer(self, words: list[str]) -> Answer:
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "400 Bad Request", "text/plain", b"not an HTTP/1 request\n"
        page = self._pages.get(words[1].partition("?")[0])
        if page is None:
            return "404 Not Found", "text/plain", b"pages: /metrics /live /ready\n"
        if words[0] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", b"GET or HEAD\n"
        return page()

    def _live(self) -> Answer:
        # A stalled service should be restarted; one that is starting or draining should be left alone.
        alive = self._readiness.condition.state is not State.STALLED
        return _report("200 OK" if alive else "503 Service Unavailable", self._readiness)

    def _ready(self) -> Answer:
        return _report("200 OK" if self._readiness.is_ready else "503 Service Unavailable", self._readiness)


def _report(status: str, readiness: Readiness) -> Answer:
    now = readiness.condition
    facts = {"state": now.state.value, "activity": now.activity, "progress": round(now.progress, 3)}
    return status, "application/json", json.dumps(facts).encode() + b"\n"
