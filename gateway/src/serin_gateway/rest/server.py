"""REST as a running server: uvicorn in our event loop, drained in order. Knows nothing about what is served."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from serin_gateway.rest.http import BoundedHttp

KEEP_ALIVE_S = 75
BACKLOG = 2048
LOOK_AT_CERTIFICATES_EVERY_S = 5.0
TICK_S = 1.0


class RestServer:
    """Serves an ASGI application while it is entered.

    Args:
        app: the application.
        host, port: where to listen; port 0: any free one, see :attr:`port`.
        tls_dir: folder with cert.pem and key.pem, followed as they change; ``None``: plain HTTP.
        drain_grace_s: seconds that running requests get when it is left.
    """

    def __init__(
        self, app: Any, host: str, port: int, *, tls_dir: Path | None = None, drain_grace_s: float = 20.0
    ) -> None:
        self._tls = _Certificates(tls_dir) if tls_dir is not None else None
        config = uvicorn.Config(
            app,
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(drain_grace_s)),
            ssl_context_factory=None if self._tls is None else self._tls.give_context,
        )
        self._server = _Server(config)
        self._where = (host, port)
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Port that it listens on."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def num_connections(self) -> int:
        """Connections that are open, whatever they are used for."""
        return len(self._server.server_state.connections)

    async def __aenter__(self) -> "RestServer":
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        self._socket = socket.create_server(self._where, family=family, backlog=BACKLOG)
        self._serving = asyncio.create_task(self._server.serve([self._socket]), name="rest")
        if self._tls is not None:
            self._following = asyncio.create_task(self._tls.follow(), name="rest certificates")
        await self._server.listening.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain."""
        await self.drain()

    def begin_drain(self, notice_s: float) -> None:
        """Drain, ``notice_s`` seconds from now: time for balancers to hear that no requests are welcome."""
        asyncio.get_running_loop().call_later(notice_s, self._server.stop)

    async def drain(self) -> None:
        """Accept nothing more, let running requests finish within the grace, cancel the rest. Once is enough."""
        self._server.stop()
        if self._following is not None:
            self._following.cancel()
        await asyncio.gather(*filter(None, (self._serving, self._following)), return_exceptions=True)
        await asyncio.gather(*self._server.server_state.tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has an owner already."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop accepting."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Until it is stopped, which is noticed at once; once a second the date of answers is made new."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()


class _Certificates:
    """The certificate of this server, read again when its file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._read_at = self._changed_at()
        self._load()

    def give_context(self, *_: object) -> ssl.SSLContext:
        """The context that new connections use."""
        return self.context

    async def follow(self) -> None:
        """Look at the files now and then, for as long as this task lives."""
        while True:
            await asyncio.sleep(LOOK_AT_CERTIFICATES_EVERY_S)
            with contextlib.suppress(OSError, ssl.SSLError):  # half written: the next look finds it whole
                changed_at = self._changed_at()
                if changed_at != self._read_at:
                    self._load()
                    self._read_at = changed_at

    def _changed_at(self) -> tuple[int, int]:
        return (self._folder / "cert.pem").stat().st_mtime_ns, (self._folder / "key.pem").stat().st_mtime_ns

    def _load(self) -> None:
        # On trial first: a certificate that does not fit its key must not reach the context that serves.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")
        self.context.load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")
