"""Sends attacks over clients that stay open, and says how each ended. Judges nothing."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from harness.clients import plain_http
from harness.wire_errors import error_info
from security.attack import KEY, Attack, Raw, Rest, Rpc

TIMEOUT_S = 20.0
SERVICE = "serin.inference.v1.InferenceService"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) ")


@dataclass(frozen=True)
class Outcome:
    """How an attack ended: a status of HTTP or of gRPC, our reason if it was refused, everything that was said.

    Attributes:
        statuses: of all answers on the connection, for bytes.
        seconds: from the first byte sent to the last one heard.
    """

    status: int | grpc.StatusCode = 0
    reason: str | None = None
    message: str = ""
    shape: str = ""
    statuses: tuple[int, ...] = ()
    seconds: float = 0.0


class Senders:
    """Clients of one mesh that keep their connections.

    Args:
        rest: base of the REST interface.
        rpc: `host:port` of the gRPC interface.
        key: what `KEY` stands for.
    """

    def __init__(self, rest: str, key: str, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self._address = rest.removeprefix("http://").split(":")
        self._key = key
        self._http = http
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def open(cls, rest: str, rpc: str, key: str) -> "AsyncIterator[Senders]":
        """Open the clients."""
        options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
        async with (
            plain_http(base_url=rest, timeout=TIMEOUT_S) as http,
            grpc.aio.insecure_channel(rpc, options=options) as channel,
        ):
            yield cls(rest, key, http, channel)

    async def send(self, attack: Attack) -> Outcome:
        """Make an attempt. Its own preparation does not count as time that it takes."""
        if isinstance(attack.by, Rest):
            return await self._rest(attack.by)
        if isinstance(attack.by, Rpc):
            return await self._rpc(attack.by)
        return await self._raw(attack.by)

    async def _rest(self, by: Rest) -> Outcome:
        body = by.body if isinstance(by.body, bytes) else b"" if by.body is None else encoded(by.body)
        headers = {"content-type": "application/json"} | {
            name: value.replace(KEY, self._key) if isinstance(value, str) else value
            for name, value in by.headers.items()
        }
        if by.key is not None:
            headers["authorization"] = f"Bearer {by.key.replace(KEY, self._key)}".encode()
        path = by.path.replace(KEY, self._key)
        started = time.monotonic()
        response = await self._http.request(by.method, path, content=body, headers=headers)
        seconds = time.monotonic() - started
        if response.is_success:
            return Outcome(response.status_code, None, response.text, "answer", seconds=seconds)
        told = response.json()
        error = told["error"]
        shape = "anthropic" if told.get("type") == "error" else "openai"
        return Outcome(response.status_code, error["reason"], error["message"], shape, seconds=seconds)

    async def _rpc(self, by: Rpc) -> Outcome:
        metadata: list[tuple[str, Any]] = [
            (name, value.replace(KEY, self._key) if isinstance(value, str) else value) for name, value in by.metadata
        ]
        if by.key is not None:
            metadata.append(("authorization", f"Bearer {by.key.replace(KEY, self._key)}"))
        data, path = by.make().SerializeToString(), f"/{SERVICE}/{by.method}"
        started = time.monotonic()
        last = b""
        try:
            if by.method == "Generate":
                async for answer in self._channel.unary_stream(path)(data, metadata=metadata, timeout=TIMEOUT_S):
                    last = answer
            else:
                last = await self._channel.unary_unary(path)(data, metadata=metadata, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            seconds = time.monotonic() - started
            return Outcome(error.code(), error_info(error).reason, error.details() or "", seconds=seconds)
        return Outcome(grpc.StatusCode.OK, None, last.decode("latin-1"), seconds=time.monotonic() - started)

    async def _raw(self, by: Raw) -> Outcome:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection(*self._address)
        answer = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                with contextlib.suppress(ConnectionError):
                    writer.write(by.data.replace(KEY.encode(), self._key.encode()))
                    await writer.drain()
                with contextlib.suppress(ConnectionError):
                    while piece := await reader.read(65_536):
                        answer += piece
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        statuses = tuple(int(found) for found in _STATUS.findall(answer))
        return Outcome(
            statuses[0] if statuses else 0, None, answer.decode("latin-1"), "", statuses, time.monotonic() - started
        )


def encoded(body: Any) -> bytes:
    """A body as JSON; a member that is None is left out of the outermost object."""
    kept = {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body
    return json.dumps(kept, separators=(",", ":")).encode()
