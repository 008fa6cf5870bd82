"""One gRPC server with everything a service of the mesh has: onion, health, load, metrics, announcement, drain.

A drain has an order: say NOT_SERVING and DRAINING; wait for others to hear it; end watches; refuse new calls; let
running ones finish within the grace; cancel the rest; withdraw; close. Knows nothing about processes and signals.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from serin.control.v1 import registry_pb2
from xds.service.orca.v3 import orca_pb2_grpc

from serin_mesh import logs
from serin_mesh.advertise import advertised_endpoint, join
from serin_mesh.announce import KINDS, Announcement, Announcer
from serin_mesh.channels import MAX_MESSAGE_BYTES, MeshChannel, connect
from serin_mesh.health_servicer import HealthServicer
from serin_mesh.interceptors.identity import Callers
from serin_mesh.interceptors.standard import standard_onion
from serin_mesh.interceptors.watches import Watches
from serin_mesh.lanes import LaneWatch
from serin_mesh.load import LoadReport, LoadServicer
from serin_mesh.metrics_server import MetricsServer
from serin_mesh.readiness import Readiness
from serin_mesh.served_names import ServedNames
from serin_mesh.settings import ServiceSettings
from serin_mesh.tls import IdentityFiles, server_credentials

PROBE_EVERY_S = 0.5

Register = Callable[[grpc.aio.Server], None]


class HostError(Exception):
    """A server cannot start; the message says why and what to do."""


class ServiceHost:
    """A running server, while it is entered.

    Args:
        settings: where to listen, TLS, control planes, drain.
        service: its name, which is also its identity: gateway, tokenizer, worker, cache or control.
        register: adds the service's servicers to the server.
        readiness: what health, announcements and /ready follow; default: ready at once.
        load: load now, for balancers; None: none is reported.
        announce: what to tell the control planes; None: nothing.
        callers: services that may call, by method or service (see ``interceptors.identity``).
        default_deadline_s: deadline of calls that come without one; None: they are refused.
        metrics_http: serve /metrics, /live and /ready on the metrics port.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        service: str,
        register: Register,
        *,
        readiness: Readiness | None = None,
        load: Callable[[], LoadReport] | None = None,
        announce: Announcement | None = None,
        callers: Callers | None = None,
        default_deadline_s: float | None = None,
        metrics_http: bool = True,
    ) -> None:
        self.settings = settings
        self.service = service
        self.readiness = readiness or _ready_at_once()
        self.port = 0
        self.metrics_address = ""
        self.lanes: LaneWatch | None = None
        self._register = register
        self._load = load
        self._announce = announce
        self._callers = callers or {}
        self._default_deadline_s = default_deadline_s
        self._metrics_http = metrics_http
        self._watches = Watches()
        self._server: grpc.aio.Server | None = None
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        """``host:port`` that others reach it by."""
        return join(self.settings.dial_host, self.port)

    def connect(self, **options: Any) -> MeshChannel:
        """A channel to this server."""
        return connect(self.address, self.settings, service=self.service, **options)

    async def __aenter__(self) -> "ServiceHost":
        async with AsyncExitStack() as stack:
            await self._start_server()
            stack.push_async_callback(self._drain)
            if self._metrics_http:
                server = MetricsServer(self.settings.host, self.settings.metrics_port, self.readiness)
                try:
                    await stack.enter_async_context(server)
                except OSError as error:
                    raise HostError(_taken("--metrics-port", self.settings.metrics_port, error)) from error
                self.metrics_address = join(self.settings.dial_host, server.port)
            stack.push_async_callback(_cancel, asyncio.create_task(self._keep_probing(), name="liveness probe"))
            if self._announce is not None and self.settings.control:
                self.lanes = await stack.enter_async_context(LaneWatch(self.settings))
                registration = await self._registration(self._announce)
                await stack.enter_async_context(Announcer(self.settings, registration, self.readiness))
            stack.push_async_callback(self._stop_accepting)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start_server(self) -> None:
        onion = standard_onion(
            readiness=self.readiness,
            encrypted=self.settings.tls_dir is not None,
            callers=self._callers,
            own_lanes=self._own_lanes,
            default_deadline_s=self._default_deadline_s,
            watches=self._watches,
        )
        server = grpc.aio.server(interceptors=[onion], options=_OPTIONS)
        served = ServedNames(server)
        self._register(served)
        health = HealthServicer((self.service, *served.names), self.readiness)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)  # type: ignore[no-untyped-call]
        if self._load is not None:
            orca_pb2_grpc.add_OpenRcaServiceServicer_to_server(LoadServicer(self._load), server)
        if self.settings.development:
            _add_inspection(server, served.names)
        where = join(self.settings.host, self.settings.port)
        try:
            if self.settings.tls_dir is not None:
                credentials = server_credentials(IdentityFiles(self.settings.tls_dir))
                self.port = server.add_secure_port(where, credentials)
            else:
                self.port = server.add_insecure_port(where)
        except RuntimeError as error:
            raise HostError(_taken("--port", self.settings.port, error)) from error
        await server.start()
        self._server = server

    async def _registration(self, announce: Announcement) -> registry_pb2.Registration:
        return registry_pb2.Registration(
            instance=self.settings.instance,
            service=KINDS[self.service],
            model=announce.model,
            version=self.settings.version,
            endpoint=await advertised_endpoint(self.settings.dial_host, self.port),
            http_endpoint=announce.http_endpoint or self.metrics_address,
            formats=registry_pb2.Formats(written=announce.written_format, read=announce.read_formats)
            if announce.written_format
            else None,
        )

    def _own_lanes(self) -> Mapping[str, int]:
        if self.lanes is None or self._announce is None or not self._announce.model:
            return {}
        return self.lanes.lanes_of(KINDS[self.service], self._announce.model, self.settings.version)

    async def _keep_probing(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            self.readiness.probe()

    async def _stop_accepting(self) -> None:
        """First half of a drain: everybody learns of it, then running calls finish."""
        self.readiness.draining()
        assert self._server is not None
        if self._announce is not None and self.settings.control:
            await asyncio.sleep(self.settings.drain_notice_s)
        self._watches.end()
        logs.get().info("service.draining", grace_s=self.settings.drain_grace_s)
        await self._server.stop(self.settings.drain_grace_s)

    async def _drain(self) -> None:
        """Last half: whatever came between is cancelled; nothing if the first half ran."""
        assert self._server is not None
        await self._server.stop(None)


_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a lottery
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Streams that are silent for long are normal here: callers' keepalives must not be taken for an attack.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def _ready_at_once() -> Readiness:
    readiness = Readiness()
    readiness.ready()
    return readiness


def _add_inspection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    from grpc_channelz.v1 import channelz  # only in development
    from grpc_reflection.v1alpha import reflection

    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)  # type: ignore[no-untyped-call]
    channelz.add_channelz_servicer(server)  # type: ignore[no-untyped-call]


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _taken(flag: str, port: int, error: Exception) -> str:
    return f"{flag}: {port}: cannot listen there: {error}: accepted: a free port, or 0 for any"
