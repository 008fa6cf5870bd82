"""Raw ADS streams: each asks for one target as an `xds:///` client does, takes whatever comes, and notes when.

Reads only what it must of a response (type, version, nonce), so that hundreds of them cost less than what is measured.
"""

import asyncio
import time
from collections.abc import Iterator
from types import TracebackType

import grpc
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from serin_control.xds.resources import Kind
from serin_control.xds.server import SERVICE

STREAMS_A_CHANNEL = 25
TARGET = "worker.small"
CLUSTERS = [f"{TARGET}@v1", f"{TARGET}@v2"]
_NAMES = {Kind.CLUSTER: CLUSTERS, Kind.ASSIGNMENT: CLUSTERS, Kind.LISTENER: [TARGET], Kind.ROUTES: [TARGET]}
_TYPE_URL, _VERSION, _NONCE = 4, 1, 5


class RawStreams:
    """The streams; reopened by themselves when the control plane comes back."""

    def __init__(self, control: str, number: int) -> None:
        self._channels = [
            grpc.aio.insecure_channel(control, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(-(-number // STREAMS_A_CHANNEL))
        ]
        self._number = number
        self._tasks: list[asyncio.Task[None]] = []
        self._routes: dict[int, tuple[str, float]] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "RawStreams":
        self._tasks = [asyncio.create_task(self._keep_open(number)) for number in range(self._number)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def settled(self) -> None:
        """Wait until every stream has routes."""
        await self._until(lambda: len(self._routes) == self._number)

    def next_change(self) -> "asyncio.Future[list[float]]":
        """When each stream is sent routes of another version than it has now, in seconds of the monotonic clock."""
        return asyncio.ensure_future(self._next_change(dict(self._routes)))

    async def _next_change(self, before: dict[int, tuple[str, float]]) -> list[float]:
        await self._until(lambda: all(self._routes[number][0] != version for number, (version, _) in before.items()))
        return [at for _, at in self._routes.values()]

    async def _until(self, holds) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def _keep_open(self, number: int) -> None:
        channel = self._channels[number // STREAMS_A_CHANNEL]
        method = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")
        while True:
            call = method(wait_for_ready=True)
            try:
                node = core.Node(id=f"bench-{number}", user_agent_name="bench")
                for kind, names in _NAMES.items():
                    await call.write(_request(kind.value, names, node=node))
                async for response in call:
                    at = time.monotonic()
                    type_url, version, nonce = _read(response)
                    if type_url == Kind.ROUTES.value:
                        self._routes[number] = (version, at)
                        self._changed.set()
                    await call.write(_request(type_url, _NAMES[Kind(type_url)], version, nonce))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)  # the control plane is away


def _request(
    type_url: str, names: list[str], version: str = "", nonce: str = "", node: core.Node | None = None
) -> bytes:
    return bytes(
        discovery.DiscoveryRequest(
            version_info=version, node=node, resource_names=names, type_url=type_url, response_nonce=nonce
        )
    )


def _read(response: bytes) -> tuple[str, str, str]:
    """Type, version and nonce of a response."""
    found = {number: value.decode() for number, value in _texts(response) if number in (_TYPE_URL, _VERSION, _NONCE)}
    return found.get(_TYPE_URL, ""), found.get(_VERSION, ""), found.get(_NONCE, "")


def _texts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields of a message whose fields are all length-delimited."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
