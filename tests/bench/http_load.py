"""A load of chats over HTTP/1.1 that costs little: raw sockets kept open, answers read as bytes and counted.

Knows chat completions as OpenAI's clients send them, nothing about who answers.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import orjson

_TEXT = b'"content":"'
_EMPTY = (b'"content":""', b'"content":null')


@dataclass
class Answer:
    """One answer as its client saw it: seconds after it was asked for, chunks that had text, tokens it says it had."""

    duration_s: float = 0.0
    first_s: float = 0.0
    num_tokens: int = 0
    chunks_at: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Answers to a load, and the seconds it took."""

    answers: Sequence[Answer]
    wall_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.wall_s

    @property
    def num_chunks(self) -> int:
        """Chunks that had text."""
        return sum(len(answer.chunks_at) for answer in self.answers)

    @property
    def num_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(answer.num_tokens for answer in self.answers)

    def latency_ms(self, share: float) -> float:
        """A quantile of the whole answers' times."""
        return 1e3 * quantile([answer.duration_s for answer in self.answers], share)

    def gap_ms(self, share: float) -> float:
        """A quantile of the times between two chunks of an answer."""
        gaps = [b - a for one in self.answers for a, b in zip(one.chunks_at, one.chunks_at[1:], strict=False)]
        return 1e3 * quantile(gaps, share)

    def first_ms(self, share: float) -> float:
        """A quantile of the times to the first text."""
        return 1e3 * quantile([answer.first_s for answer in self.answers], share)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the others lies; 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class Connection:
    """One connection, kept open between chats.

    Args:
        url: base, ``http://host:port``.
        key: bearer key.
        model: asked in every chat.
    """

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._key, self._model = key, model
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=1 << 22)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    async def chat(self, text: str, max_tokens: int, *, stream: bool = False) -> Answer:
        """Ask, and read the answer to its end.

        Raises:
            RuntimeError: the answer is an error, or broke off.
        """
        body = {
            "model": self._model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens,
            "temperature": 0, "stream": stream,
        }  # fmt: skip
        if stream:
            body["stream_options"] = {"include_usage": True}
        content = orjson.dumps(body)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        assert self._reader is not None
        assert self._writer is not None
        answer, began = Answer(), time.perf_counter()
        self._writer.write(head.encode() + content)
        headers = await self._reader.readuntil(b"\r\n\r\n")
        if not headers.startswith(b"HTTP/1.1 200"):
            rest = await self._reader.read(500)
            raise RuntimeError(f"{headers.splitlines()[0].decode()}: {rest!r}")
        if b"chunked" in headers.lower():
            last = await self._read_chunks(answer, began)
        else:
            last = await self._reader.readexactly(_length(headers))
        answer.duration_s = time.perf_counter() - began
        answer.num_tokens = orjson.loads(last)["usage"]["completion_tokens"]
        return answer

    async def _read_chunks(self, answer: Answer, began: float) -> bytes:
        """Read a chunked body; returns its last JSON."""
        assert self._reader is not None
        last = b""
        while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
            data = (await self._reader.readexactly(size + 2))[:-2]
            now = time.perf_counter() - began
            for line in data.splitlines():
                if line.startswith(b"data: {"):
                    last = line.removeprefix(b"data: ")
                    if _TEXT in last and not any(empty in last for empty in _EMPTY):
                        answer.first_s = answer.first_s or now
                        answer.chunks_at.append(now)
                elif not line.startswith(b"data:"):
                    last = line or last
        await self._reader.readexactly(2)
        return last


def _length(headers: bytes) -> int:
    for line in headers.splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError("an answer without a length")


async def chats(connections: Sequence[Connection], count: int, max_tokens: int) -> Load:
    """So many chats, each connection one after the other."""
    left = iter(range(count))
    answers: list[Answer] = []

    async def ask(connection: Connection) -> None:
        for number in left:
            answer = await connection.chat(question(number), max_tokens)
            answers.append(answer)

    began = time.perf_counter()
    await asyncio.gather(*(ask(connection) for connection in connections))
    return Load(answers, time.perf_counter() - began)


async def paced(connections: Sequence[Connection], count: int, per_s: float, max_tokens: int) -> Load:
    """So many chats that arrive by a Poisson process; latency counts from when each was due."""
    rng = random.Random(0)
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        idle.put_nowait(connection)
    answers: list[Answer] = []

    async def ask(number: int, due: float) -> None:
        connection = await idle.get()
        waited_s = time.perf_counter() - due
        answer = await connection.chat(question(number), max_tokens)
        answer.duration_s += waited_s
        idle.put_nowait(connection)
        answers.append(answer)

    began = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due += rng.expovariate(per_s)
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(ask(number, due))
    return Load(answers, time.perf_counter() - began)


async def streams(connections: Sequence[Connection], max_tokens: int) -> Load:
    """A streamed chat on every connection at once."""
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(one.chat(question(number), max_tokens, stream=True) for number, one in enumerate(connections))
    )
    return Load(answers, time.perf_counter() - began)


def question(number: int) -> str:
    """A short question; no two are alike."""
    return f"Question {number}: what is {number % 97} plus {number % 89}?"
