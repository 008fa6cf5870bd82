"""Clients that cost little: they read streams as bytes, note when the first token came, and parse the end alone.

Knows the two doors of the gateway and the worker's, nothing about meshes or reports.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.inference.v1 import inference_pb2
from serin.worker.v1 import worker_pb2

DEADLINE_S = 600.0
Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Streamed:
    """One stream: seconds to its first token and to its end, tokens it had; messages, where they were counted."""

    first_token_s: float
    duration_s: float
    num_tokens: int
    num_messages: int = 0


@dataclass(frozen=True)
class Burst:
    """Streams that began together."""

    streams: Sequence[Streamed]
    wall_s: float

    @property
    def tokens_per_s(self) -> float:
        """What arrived, over the whole time."""
        return sum(stream.num_tokens for stream in self.streams) / self.wall_s


async def burst(ask: Callable[[int], Awaitable[Streamed]], num_streams: int) -> Burst:
    """Ask as many times at once; `ask` gets the number of the stream."""
    began = time.perf_counter()
    streams = await asyncio.gather(*(ask(index) for index in range(num_streams)))
    return Burst(streams, time.perf_counter() - began)


class RestDoor:
    """The gateway's completions endpoint over HTTP/1.1, a connection for each stream."""

    def __init__(self, rest: str, key: str, model: str) -> None:
        host, _, port = rest.removeprefix("http://").rpartition(":")
        self._host, self._port = host, int(port)
        self._key = key
        self._model = model

    async def ask(self, prompt: Prompt, max_tokens: int) -> Streamed:
        """Stream one answer of exactly ``max_tokens``."""
        body = orjson.dumps(
            {
                "model": self._model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True,
                "ignore_eos": True, "stream_options": {"include_usage": True},
            }
        )  # fmt: skip
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        began = time.perf_counter()
        writer.write(head.encode() + body)
        try:
            return await self._read(reader, began)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, began: float) -> Streamed:
        first_token_s = 0.0
        tail = b""
        while data := await reader.read(1 << 16):
            if not first_token_s and b'"text":"' in data.replace(b'"text":""', b""):
                first_token_s = time.perf_counter() - began
            tail = (tail + data)[-4096:]
        if b"data: [DONE]" not in tail:
            raise RuntimeError(f"the stream broke: {tail[-500:]!r}")
        last = next(line for line in reversed(tail.split(b"\n")) if line.startswith(b"data: {"))
        usage = orjson.loads(last.removeprefix(b"data: "))["usage"]
        return Streamed(first_token_s, time.perf_counter() - began, usage["completion_tokens"])


class GrpcDoor:
    """The gateway's `InferenceService`."""

    def __init__(self, channel: grpc.aio.Channel, key: str, model: str) -> None:
        self._generate = raw_stream(channel, "/serin.inference.v1.InferenceService/Generate")
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._model = model

    async def ask(self, prompt: Prompt, max_tokens: int) -> Streamed:
        """Stream one answer of exactly ``max_tokens``."""
        request = inference_pb2.GenerateRequest(model=self._model, sampling=_sampling(max_tokens))
        if isinstance(prompt, str):
            request.prompt = prompt
        else:
            request.token_prompt.token_ids.extend(prompt)
        call = self._generate(request.SerializeToString(), timeout=DEADLINE_S, metadata=self._metadata)
        (first_s, all_s, num_messages), last = await _read_events(call, inference_pb2.GenerateResponse)
        usage = inference_pb2.GenerateResponse.FromString(last).summary.usage
        return Streamed(first_s, all_s, usage.completion_token_count, num_messages)


class WorkerDoor:
    """A worker's own `WorkerService`: the engine with nothing of the mesh before it."""

    def __init__(self, channel: grpc.aio.Channel, vocabulary: str) -> None:
        self._generate = raw_stream(channel, "/serin.worker.v1.WorkerService/Generate")
        self._vocabulary = vocabulary
        self._num_asked = 0

    async def ask(self, prompt: Sequence[int], max_tokens: int) -> Streamed:
        """Stream one answer of exactly ``max_tokens``; nothing is reused from earlier prompts."""
        self._num_asked += 1
        request = worker_pb2.GenerateRequest(
            request_id=f"bench-{self._num_asked}",
            vocabulary_digest=self._vocabulary,
            prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=prompt))],
            sampling=_sampling(max_tokens),
        )
        call = self._generate(request.SerializeToString(), timeout=DEADLINE_S)
        (first_s, all_s, num_messages), last = await _read_events(call, worker_pb2.GenerateResponse)
        summary = worker_pb2.GenerateResponse.FromString(last).summary
        return Streamed(first_s, all_s, summary.generated_token_count, num_messages)


def raw_stream(channel: grpc.aio.Channel, method: str) -> Any:
    """A callable that takes and gives messages as bytes."""
    return channel.unary_stream(method, request_serializer=None, response_deserializer=None)


async def _read_events(call: Any, message: Any) -> tuple[tuple[float, float, int], bytes]:
    """Seconds to the first token and to the end, messages; and the last of these."""
    began = time.perf_counter()
    first_token_s = 0.0
    num_messages = 0
    last = b""
    async for last in call:
        if not first_token_s and message.FromString(last).WhichOneof("event") == "delta":
            first_token_s = time.perf_counter() - began
        num_messages += 1
    return (first_token_s, time.perf_counter() - began, num_messages), last


def _sampling(max_tokens: int) -> sampling_pb2.SamplingParameters:
    return sampling_pb2.SamplingParameters(temperature=0, max_tokens=max_tokens, ignore_eos=True)
