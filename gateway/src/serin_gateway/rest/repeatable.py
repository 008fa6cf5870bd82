"""A REST answer that is made once, however often it is asked for under one `Idempotency-Key`.

Made for a client of its own, whose response becomes the frames of a transcript; every client, the first one too, is
sent these. Knows nothing about who keeps transcripts, nor about what endpoints answer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from serin_mesh.call import LANE_KEY

from serin_gateway.idempotency import IdempotencyDesk, Transcript, fingerprint
from serin_gateway.ignored import IGNORED_KEY
from serin_gateway.pipeline import Request
from serin_gateway.rest.answering import read_body
from serin_gateway.rest.client import Client, Headers, Message
from serin_gateway.rest.endpoint import Endpoint
from serin_gateway.rest.headers import MODEL_HEADER, ROUTE_HEADER, limit_headers

IDEMPOTENCY_KEY = b"idempotency-key"
REPEATED = (b"idempotent-replayed", b"true")
_KEPT_HEADERS = {
    *(b"content-type", b"content-length", b"cache-control", IGNORED_KEY.encode()),
    *(LANE_KEY.encode(), MODEL_HEADER, ROUTE_HEADER),
}
"""What is said of the answer; the others are about one exchange."""


class RepeatableAnswer:
    """One exchange under an `Idempotency-Key`."""

    def __init__(self, desk: IdempotencyDesk, endpoint: Endpoint, client: Client, request: Request) -> None:
        self._desk = desk
        self._endpoint = endpoint
        self._client = client
        self._request = request
        self._body = b""

    async def give(self, key: str) -> None:
        """Answer, as the first or as a repeat.

        Raises:
            MeshError, ClientGone: as the endpoint's own answer.
        """
        client, request = self._client, self._request
        self._body = await read_body(client, request)
        asked = fingerprint(self._endpoint.path.encode(), self._body, request.arrival.steering)
        frames = self._desk.answer(request.caller.key_id, key, asked, self._make, timeout_s=request.seconds_left)
        async with client.watched(), aclosing(frames):
            await self._send(frames)

    async def _send(self, frames: AsyncIterator[bytes]) -> None:
        async for frame in frames:
            if self._client.has_started:
                await self._client.write(frame[1:], more=frame[:1] == _MORE)
                continue
            head = orjson.loads(frame)
            if not self._request.outlives_caller:
                self._request.receipt.operation = "repeat"
                self._client.headers.append(REPEATED)
            elif self._request.standing is not None:
                self._client.headers += limit_headers(self._request.standing)
            headers = [(name.encode(), value.encode()) for name, value in head["headers"]]
            await self._client.start(head["status"], headers)

    async def _make(self, transcript: Transcript) -> None:
        assert self._endpoint.answer is not None
        try:
            async with self._request.on_its_own(transcript.account):
                await self._endpoint.answer(_recorded(self._client, self._body, transcript), self._request)
        finally:
            transcript.is_billed = self._request.receipt.is_billed


_MORE, _LAST = b"+", b"."


def _recorded(client: Client, body: bytes, transcript: Transcript) -> Client:
    """A client that sends the same body, never leaves, and writes down what it is answered."""
    bodies = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        if bodies:
            return bodies.pop()
        return await asyncio.Future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            transcript.add(_head(message))
        else:
            transcript.add((_MORE if message.get("more_body") else _LAST) + message["body"])

    headers: Headers = []
    recorded = Client(client.scope, receive, send, headers)
    recorded.query = client.query
    return recorded


def _head(message: Message) -> bytes:
    kept: list[Any] = [[n.decode(), v.decode("latin-1")] for n, v in message["headers"] if n in _KEPT_HEADERS]
    return orjson.dumps({"status": message["status"], "headers": kept})
