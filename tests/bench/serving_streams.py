"""What one worker process sends at most: its engine emits as fast as it can (`serving_twin.py`), many streams read it.

Both ways of asking are measured: a call for each stream, and one `Work` stream for all of them, as gateways ask.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from load import WorkerDoor, burst
from processes import Processes, limit
from report import show
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.worker.v1 import worker_pb2
from serving_promise import at_least, kept, show_promises
from serving_scale import Scale
from serving_start import started
from serving_twin import VOCABULARY

RATE_GOAL = 100_000.0
TICK_S = 0.01
"""CPU seconds of a process are counted in these."""
TWIN = Path(__file__).with_name("serving_twin.py")


def measure_streams(scale: Scale) -> dict[str, Any]:
    """Tokens a second that arrive."""
    with started([sys.executable, str(TWIN), "--log-format", "json"]) as (process, events):
        return asyncio.run(_measure(process.pid, events["service.listening"]["address"], scale))


async def _measure(pid: int, address: str, scale: Scale) -> dict[str, Any]:
    processes = Processes({"worker": pid, "client": os.getpid()})
    found: dict[str, Any] = {}
    rows = []
    async with grpc.aio.insecure_channel(address) as channel:
        ways = {"a call for each": _calls, "one Work stream": _work}
        for name, ask in ways.items():
            rates, told = [], []
            for _ in range(scale.rounds):
                processes.begin()
                began = time.perf_counter()
                num_tokens, num_messages = await ask(channel, scale)
                wall_s = time.perf_counter() - began
                assert num_tokens == scale.num_streams * scale.stream_tokens
                costs = processes.costs()
                rates.append(num_tokens / wall_s)
                cpu_s = max(costs["worker"].cpu_s, TICK_S)
                told.append((limit(costs, wall_s, os.cpu_count() or 1), num_tokens / cpu_s))
            at = rates.index(statistics.median_low(rates))
            found[name] = {
                "tokens_per_s": rates, "limit": told[at][0], "tokens_per_cpu_s": told[at][1], "messages": num_messages,
            }  # fmt: skip
            rows.append((name, rates[at], max(rates), told[at][1], num_tokens / num_messages, told[at][0]))
    title = f"an engine that emits as fast as it can, {scale.num_streams} streams of {scale.stream_tokens:,} tokens"
    columns = ("asked", "tokens/s", "best", "tokens a worker CPU s", "tokens a message", "limited by")
    show(title, columns, rows)
    promises = [at_least(f"tokens/s, {row[0]}", float(row[1]), RATE_GOAL) for row in rows]
    show_promises("one worker process", promises)
    return kept(promises, ways=found)


async def _calls(channel: grpc.aio.Channel, scale: Scale) -> tuple[int, int]:
    """Tokens and messages of as many calls."""
    door = WorkerDoor(channel, VOCABULARY)
    arrived = await burst(lambda _: door.ask([1], scale.stream_tokens), scale.num_streams)
    return sum(stream.num_tokens for stream in arrived.streams), sum(one.num_messages for one in arrived.streams)


async def _work(channel: grpc.aio.Channel, scale: Scale) -> tuple[int, int]:
    """Tokens and messages of one stream."""
    is_over = asyncio.Event()

    async def frames() -> AsyncIterator[worker_pb2.WorkRequest]:
        yield worker_pb2.WorkRequest(frames=[_begin(number, scale) for number in range(scale.num_streams)])
        await is_over.wait()

    call = channel.stream_stream(
        "/serin.worker.v1.WorkerService/Work",
        request_serializer=worker_pb2.WorkRequest.SerializeToString,
        response_deserializer=worker_pb2.WorkResponse.FromString,
    )(frames())
    num_tokens = num_messages = num_over = 0
    async for response in call:
        num_messages += 1
        for news in response.news:
            assert not news.HasField("failure"), news.failure
            for event in news.events:
                num_tokens += len(event.delta.token_ids)
                num_over += event.HasField("summary")
        if num_over == scale.num_streams:
            is_over.set()
    return num_tokens, num_messages


def _begin(number: int, scale: Scale) -> worker_pb2.WorkFrame:
    request = worker_pb2.GenerateRequest(
        request_id=f"work-{number}",
        vocabulary_digest=VOCABULARY,
        prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1]))],
        sampling=sampling_pb2.SamplingParameters(temperature=0, max_tokens=scale.stream_tokens, ignore_eos=True),
    )
    return worker_pb2.WorkFrame(work_id=number + 1, begin=worker_pb2.BeginWork(request=request, timeout_seconds=600))
