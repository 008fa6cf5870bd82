"""Every service is restarted under load, one process after another: no call fails, and no answer changes."""

import asyncio
import os
import signal
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import httpx
import pytest
from harness.asking import TINY, greedy
from harness.eventually import eventually
from harness.running_mesh import RunningMesh
from harness.tiny_model import write_tiny_model
from openai import AsyncOpenAI, OpenAIError
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

pytestmark = pytest.mark.long

DECLARATION = """\
models:
  {name}:
    path: {path}
    precision: float32
    numerics: invariant
    context_length: 512
    kv_blocks: 256
    workers: 2
    tokenizers: 2
"""
PROMPTS = [f"Go on, number {n}: " for n in range(4)]
NUM_TOKENS = 60
RESTART_S = 90.0
SETTLED_S = 3.0
"""Load goes on so long between two restarts, as an operator's script or Kubernetes would let it."""


@dataclass
class Load:
    """What callers saw.

    Attributes:
        answers: texts that came, by prompt and by the way they were asked for.
        failures: what went wrong, as the caller was told.
    """

    answers: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    num_calls: Counter[str] = field(default_factory=Counter)

    def came(self, way: str, prompt: str, text: str) -> None:
        """An answer."""
        self.answers.setdefault((way, prompt), set()).add(text)
        self.num_calls[way] += 1


@pytest.fixture(scope="module")
def edged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh with an edge and two processes of everything that callers cannot do without."""
    folder = tmp_path_factory.mktemp("rolling")
    text = DECLARATION.format(name=TINY, path=write_tiny_model(folder / TINY))
    mesh = RunningMesh(folder / "state", text, ("--edge", "--edge-port", "0", "--edge-mesh-port", "0"))
    mesh.start()
    mesh.serin("add", "gateway", "--version", "v2")
    yield mesh
    mesh.stop()


async def ask_over_rest(client: AsyncOpenAI, load: Load, stop: asyncio.Event) -> None:
    """Questions one after another, streamed and not in turn; the SDK retries nothing."""
    for number in range(1_000_000):
        prompt, streams = PROMPTS[number % len(PROMPTS)], number % 3 != 0
        if stop.is_set():
            return
        try:
            ask = greedy(prompt, max_tokens=NUM_TOKENS)
            if streams:
                chunks = [chunk async for chunk in await client.chat.completions.create(**ask, stream=True)]
                load.came("rest", prompt, "".join(chunk.choices[0].delta.content or "" for chunk in chunks))
            else:
                answer = await client.chat.completions.create(**ask)
                load.came("rest", prompt, answer.choices[0].message.content or "")
        except OpenAIError as error:
            load.failures.append(f"REST, {'streamed' if streams else 'whole'}: {error!r}")


async def ask_over_grpc(channel: grpc.aio.Channel, key: str, load: Load, stop: asyncio.Event) -> None:
    """The same over gRPC."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    for number in range(1_000_000):
        prompt = PROMPTS[number % len(PROMPTS)]
        if stop.is_set():
            return
        request = inference_pb2.GenerateRequest(model=TINY, prompt=prompt, sampling={"max_tokens": NUM_TOKENS})
        request.sampling.temperature = 0
        text = ""
        try:
            async for event in stub.Generate(request, timeout=60, metadata=(("authorization", f"Bearer {key}"),)):
                text += event.delta.text
            load.came("grpc", prompt, text)
        except grpc.aio.AioRpcError as error:
            load.failures.append(f"gRPC: {error.code()} {error.details()}")


async def restart(mesh: RunningMesh, name: str) -> None:
    """End a process as an operator does, and wait until another one has taken its place and is ready."""
    before = mesh.members()[name].pid
    os.kill(before, signal.SIGTERM)

    async def look() -> tuple[int | None, str]:
        member = mesh.members()[name]
        return member.pid, member.phase

    await eventually(
        look, lambda seen: seen[0] not in (None, before) and seen[1] == "ready", f"a new {name}", timeout_s=RESTART_S
    )
    await asyncio.sleep(SETTLED_S)


@pytest.mark.timeout(900)
async def test_every_service_is_restarted_under_load(
    edged: RunningMesh, trust: ssl.SSLContext, front_door: grpc.aio.Channel
):
    """Control plane, caches, tokenizers, workers, gateways: REST and gRPC callers notice none of it."""
    names = [name for name in edged.members() if not name.startswith(("edge", "state", "cache-", "valkey"))]
    assert {name.partition(".")[0] for name in names} >= {"control", "cache", "tokenizer", "worker", "gateway"}
    load, stop, url = Load(), asyncio.Event(), f"{edged.record['edge']}/v1"
    async with (
        httpx.AsyncClient(verify=trust, timeout=60) as http,
        AsyncOpenAI(base_url=url, api_key=edged.key, max_retries=0, http_client=http) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(3):
            group.create_task(ask_over_rest(client, load, stop))
            group.create_task(ask_over_grpc(front_door, edged.key, load, stop))
        await eventually(lambda: asyncio.sleep(0, load), lambda one: one.num_calls.total() >= 20, "the load", 60)
        counts = {}
        for name in names:
            before = load.num_calls.total()
            await restart(edged, name)
            counts[name] = load.num_calls.total() - before
        stop.set()
    print(f"{load.num_calls} calls; while each was restarted: {counts}")
    assert load.failures == []
    assert all(counts.values()), counts
    assert {way for way, _ in load.answers} == {"rest", "grpc"}
    assert {key: len(texts) for key, texts in load.answers.items() if len(texts) > 1} == {}
