"""Fault 10: the client goes away in the middle. Everything downstream is cancelled and no KV block is lost."""

import asyncio
import random
import time

import grpc
import httpx
import pytest
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.instances import await_instances
from harness.metrics import await_metrics
from harness.running_mesh import RunningMesh
from harness.server_sent_events import read_events
from openai import AsyncOpenAI
from serin.control.v1 import registry_pb2
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

LONG = 3000  # tokens: far more than is made before anybody leaves
AT_ONCE = 12


@pytest.fixture
async def worker_metrics(mesh: RunningMesh) -> str:
    """`host:port` of the worker's metrics."""

    def workers(instances):
        return [i for i in instances if i.registration.service == registry_pb2.SERVICE_KIND_WORKER]

    found = workers(await await_instances(mesh, lambda instances: bool(workers(instances))))
    return found[0].registration.http_endpoint


async def leave_http(mesh: RunningMesh, num_events: int, text: str) -> None:
    """Ask over HTTP/1.1 and close the connection after some events."""
    async with (
        plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {mesh.key}"}, timeout=60) as client,
        client.stream(
            "POST", "/v1/chat/completions", json=greedy(text, max_tokens=LONG, stream=True, n=1 + num_events % 3)
        ) as response,
    ):
        events = read_events(response)
        for _ in range(num_events):
            await anext(events)
        await events.aclose()


async def leave_without_reading(mesh: RunningMesh, text: str) -> None:
    """Ask for an answer in one piece and close the connection while it is being made."""
    async with plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {mesh.key}"}) as client:
        with pytest.raises(httpx.TimeoutException):
            await client.post("/v1/chat/completions", json=greedy(text, max_tokens=LONG), timeout=0.2)


async def leave_grpc(mesh: RunningMesh, num_events: int, text: str, *, close_channel: bool) -> None:
    """Ask over gRPC, then reset the stream, or drop the whole connection."""
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        message = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text=text)])
        request = inference_pb2.GenerateRequest(
            model=TINY,
            chat=inference_pb2.Chat(messages=[message]),
            sampling=sampling_pb2.SamplingParameters(temperature=0, max_tokens=LONG),
        )
        call = stub.Generate(request, timeout=60, metadata=(("authorization", f"Bearer {mesh.key}"),))
        for _ in range(num_events):
            await call.read()
        if not close_channel:
            call.cancel()


async def leave(mesh: RunningMesh, rng: random.Random) -> None:
    """Go away in one of the ways, at a random moment."""
    num_events = rng.randrange(12)
    text = f"Prompt {rng.random()} " * rng.randrange(1, 20)
    way = rng.randrange(4)
    if way == 0:
        await leave_http(mesh, num_events, text)
    elif way == 1:
        await leave_without_reading(mesh, text)
    else:
        await leave_grpc(mesh, num_events, text, close_channel=way == 2)


async def cancel_at_random(mesh: RunningMesh, rng: random.Random, num_cancels: int) -> None:
    """Many clients that go away, some at a time."""
    seeds = [rng.randrange(2**32) for _ in range(num_cancels)]
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> None:
        async with turn:
            await leave(mesh, random.Random(seed))

    async with asyncio.TaskGroup() as group:
        for seed in seeds:
            group.create_task(one(seed))


async def check_conserved(client: AsyncOpenAI, worker_metrics: str) -> None:
    """Nothing runs, no block is in use, and a request that needs nearly all of them is served."""
    await await_metrics(
        worker_metrics,
        lambda values: (
            values.get("vllm:num_requests_running") == 0
            and values.get("vllm:num_requests_waiting") == 0
            and values.get("vllm:kv_cache_usage_perc") == 0
        ),
    )
    # 320 blocks of 16 tokens; this one needs 254 of them.
    answer = await client.completions.create(model=TINY, prompt="x" * 3900, max_tokens=150, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 150


async def test_every_way_of_leaving_frees_everything(mesh: RunningMesh, client: AsyncOpenAI, worker_metrics: str):
    """Connection closed while streaming, while waiting, stream reset, connection dropped: the worker is idle again."""
    for way in (
        leave_http(mesh, 5, "http"),
        leave_without_reading(mesh, "waiting"),
        leave_grpc(mesh, 5, "reset", close_channel=False),
        leave_grpc(mesh, 5, "drop", close_channel=True),
    ):
        await way
        left_at = time.perf_counter()
        await await_metrics(worker_metrics, lambda values: values.get("vllm:kv_cache_usage_perc") == 0)
        print(f"blocks free {time.perf_counter() - left_at:.3f} s after leaving: {way.__name__}")
    await check_conserved(client, worker_metrics)


async def test_random_cancels_leak_no_block(mesh, client, worker_metrics: str, rng: random.Random):
    """Sixty random departures, a dozen at a time: all blocks come back."""
    await cancel_at_random(mesh, rng, 60)
    await check_conserved(client, worker_metrics)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_thousand_random_cancels_leak_no_block(mesh, client, worker_metrics: str, rng: random.Random):
    """The full measure of the promise."""
    await cancel_at_random(mesh, rng, 1000)
    await check_conserved(client, worker_metrics)
