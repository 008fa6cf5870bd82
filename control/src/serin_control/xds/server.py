"""Speaks the state-of-the-world ADS protocol with `xds:///` clients and Envoy.

Each stream has one reader (bounded) and one writer; both end with the stream. A refusal (NACK) stands as an alarm
until the client takes a later version or goes away. Knows nothing about what resources mean.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from functools import lru_cache

import grpc
from envoy_data_plane.envoy.service.discovery import v3 as discovery

from serin_control.alarms import Alarms
from serin_control.latest import Latest
from serin_control.xds.resources import Audience, Kind
from serin_control.xds.snapshot import Snapshot
from serin_control.xds.stream import ClientStream, Push

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
INBOX_REQUESTS = 64
LOOK_AGAIN_S = 0.5
REMEMBERED_BYTES = 2_048
"""Longest request that is kept beside what it means."""

Context = grpc.aio.ServicerContext[discovery.DiscoveryRequest, bytes]


class AdsServer:
    """Serves snapshots. Register it with :meth:`add_to`."""

    def __init__(
        self, snapshots: Latest[Snapshot], alarms: Alarms, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sessions: set[_Session] = set()
        self._refusing: set[str] = set()
        self._snapshots = snapshots
        self._alarms = alarms
        self._clock = clock
        self._num_opened = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on this server."""
        method: grpc.RpcMethodHandler[discovery.DiscoveryRequest, bytes] = grpc.stream_stream_rpc_method_handler(
            self.stream, request_deserializer=_parse, response_serializer=None
        )
        handlers = {"StreamAggregatedResources": method}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def stream(self, requests: AsyncIterator[discovery.DiscoveryRequest], context: Context) -> None:
        """Serve one client until it goes."""
        self._num_opened += 1
        session = _Session(self, f"nack/{self._num_opened}/", ClientStream(), context)
        self._sessions.add(session)
        try:
            await session.run(requests)
        finally:
            self._sessions.discard(session)
            self._alarms.replace(session.alarm_prefix, {})
            self._refusing -= {key for key in self._refusing if key.startswith(session.alarm_prefix)}

    @property
    def num_streams(self) -> int:
        """Clients that are connected."""
        return len(self._sessions)

    @property
    def num_refusing(self) -> int:
        """Clients that refuse something they were sent."""
        return len(self._refusing)

    def has_edge(self) -> bool:
        """Whether an Envoy is connected, which can split callers of gateways."""
        return any(session.client.audience is Audience.EDGE for session in self._sessions)

    def knows(self, lane: str, targets: Collection[str]) -> bool:
        """Whether calls that name a lane get there from every `xds:///` client that asks for one of these targets."""
        snapshot = self._snapshots.value
        where = snapshot.clusters_of(lane) if snapshot is not None else {}
        clients = (session.client for session in self._sessions)
        return all(one.knows(lane, targets, where) for one in clients if one.audience is Audience.MESH)

    @property
    def snapshots(self) -> Latest[Snapshot]:
        """What is served."""
        return self._snapshots

    def note(self, session: "_Session", kind: Kind, refusal: str) -> None:
        """A client took what it was sent, or refused it."""
        key = f"{session.alarm_prefix}{kind.name}"
        if refusal:
            what = kind.value.rpartition(".")[2]
            self._refusing.add(key)
            self._alarms.raise_(key, f"{session.client.node} refuses the {what} it was sent: {refusal}")
        else:
            self._refusing.discard(key)
            self._alarms.clear(key)

    def now(self) -> float:
        """Seconds, monotonic."""
        return self._clock()


class _Session:
    """One stream."""

    def __init__(self, server: AdsServer, alarm_prefix: str, client: ClientStream, context: Context) -> None:
        self.alarm_prefix = alarm_prefix
        self.client = client
        self._server = server
        self._context = context
        self._inbox: asyncio.Queue[discovery.DiscoveryRequest] = asyncio.Queue(INBOX_REQUESTS)
        self._inbox_filled = asyncio.Event()
        self._over = False

    async def run(self, requests: AsyncIterator[discovery.DiscoveryRequest]) -> None:
        reader = asyncio.create_task(self._read(requests), name=self.alarm_prefix)
        try:
            await self._serve()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[discovery.DiscoveryRequest]) -> None:
        try:
            async for request in requests:
                await self._inbox.put(request)
                self._inbox_filled.set()
        finally:
            self._over = True
            self._inbox_filled.set()

    async def _serve(self) -> None:
        """Answer until the client half-closes."""
        seen = 0
        while True:
            snapshot = self._server.snapshots.value
            if snapshot is not None:
                seen = self._server.snapshots.version
                while push := self.client.next_push(snapshot, self._server.now()):
                    await self._context.write(_encode(push))
            if not await self._wait(seen):
                return

    async def _wait(self, seen: int) -> bool:
        """Wait until the client speaks, the snapshot changes, or held-up changes may go; False: the client is done."""
        events = (self._inbox_filled.wait(), self._server.snapshots.after(seen))
        waits = [asyncio.ensure_future(event) for event in events]
        timeout = LOOK_AGAIN_S if self.client.held_up else None
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._inbox_filled.clear()
        while not self._inbox.empty():
            self._hear(self._inbox.get_nowait())
        return not self._over

    def _hear(self, request: discovery.DiscoveryRequest) -> None:
        if request.node is not None and not self.client.node:
            self.client.node = request.node.id or "(unnamed client)"
            is_envoy = request.node.user_agent_name == "envoy"
            self.client.audience = Audience.EDGE if is_envoy else Audience.MESH
        try:
            kind = Kind(request.type_url)
        except ValueError:
            return  # a kind that this mesh does not use: never answered, as the protocol allows
        refusal = request.error_detail.message or "no reason given" if request.error_detail is not None else ""
        if self.client.hear(kind, request.resource_names, request.response_nonce, refusal) and request.response_nonce:
            self._server.note(self, kind, refusal)


def _parse(wire: bytes) -> discovery.DiscoveryRequest:
    """A request, not to be changed. Clients in one state acknowledge a push word for word alike."""
    return _parse_once(wire) if len(wire) <= REMEMBERED_BYTES else discovery.DiscoveryRequest.parse(wire)


@lru_cache(maxsize=512)
def _parse_once(wire: bytes) -> discovery.DiscoveryRequest:
    return discovery.DiscoveryRequest.parse(wire)


def _encode(push: Push) -> bytes:
    """A response: its fields, joined. The nonce (field 5) is this client's own, all else the same for everybody."""
    nonce = push.nonce.encode()
    return b"".join((_head(push.kind, push.version), b"\x2a", bytes([len(nonce)]), nonce, *push.fields))


@lru_cache(maxsize=64)
def _head(kind: Kind, version: str) -> bytes:
    return bytes(discovery.DiscoveryResponse(version_info=version, type_url=kind.value))
