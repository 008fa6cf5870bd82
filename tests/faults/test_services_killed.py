"""Faults 18 and 20: a tokenizer or the control plane is killed while the mesh is in use; all of a kind fall silent."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
from harness.asking import COUNTED, TINY, greedy
from harness.eventually import eventually
from harness.instances import await_instances, ready_endpoints
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI, InternalServerError
from serin.control.v1 import registry_pb2

NUM_STREAMS = 6
NUM_TOKENIZERS = 2
REFUSED_WITHOUT = {
    "worker": ("NOT_READY", "no worker of this lane can take the request now"),
    "tokenizer": ("UPSTREAM_UNAVAILABLE", f"no tokenizer of {TINY!r} can be reached at the moment"),
}
"""Reason and sentence, where all of a kind are silent."""


@pytest.fixture(autouse=True)
async def complete_afterwards(mesh: RunningMesh) -> AsyncIterator[None]:
    """Each test begins and ends with everything ready."""
    await ready(mesh)
    yield
    await ready(mesh)


async def ready(mesh: RunningMesh) -> None:
    """Wait until every instance is ready, as the control plane sees it, whichever one that is by then."""

    def complete(instances) -> bool:
        states = [instance.heartbeat.state for instance in instances]
        of_model = [one.registration.service for one in instances if one.registration.model == TINY]
        return of_model.count(registry_pb2.SERVICE_KIND_TOKENIZER) == NUM_TOKENIZERS and all(
            state == registry_pb2.INSTANCE_STATE_READY for state in states
        )

    async def look() -> bool:
        try:
            async with asyncio.timeout(5):
                await await_instances(mesh, complete)
        except (grpc.RpcError, TimeoutError):
            return False
        return True

    await eventually(look, bool, "all instances ready", timeout_s=60)


def pid_of(mesh: RunningMesh, name: str) -> int:
    """Process id of a member."""
    return mesh.members()[name].pid


async def stream(client: AsyncOpenAI, text: str, on_first: Callable[[], None] = lambda: None) -> str:
    """The text of a long streamed answer; `on_first` is called at its first token."""
    streamed = ""
    async for chunk in await client.chat.completions.create(**greedy(text, max_tokens=600), stream=True):
        content = chunk.choices[0].delta.content or ""
        if content and not streamed:
            on_first()
        streamed += content
    return streamed


@asynccontextmanager
async def asked_all_the_time(client: AsyncOpenAI) -> AsyncIterator[list[str | None]]:
    """Short questions, one after another, while the block runs; none may fail."""
    answers: list[str | None] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            answer = await client.chat.completions.create(**greedy("Still there?", max_tokens=4))
            answers.append(answer.choices[0].message.content)

    asking = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        done.set()
        await asking


@pytest.mark.parametrize("victim", [0, 1])
async def test_running_streams_survive_a_killed_tokenizer(mesh: RunningMesh, client: AsyncOpenAI, victim: int):
    """Fault 18: either tokenizer is killed mid-stream; every stream's text is the undisturbed one, no request fails."""
    prompts = [f"Stream {index} of tokenizer {victim}." for index in range(NUM_STREAMS)]
    undisturbed = await asyncio.gather(*(stream(client, prompt) for prompt in prompts))
    pid = pid_of(mesh, f"tokenizer.{TINY}.v1.{victim}")
    waiting = NUM_STREAMS

    def begun() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            os.kill(pid, signal.SIGKILL)

    async with asked_all_the_time(client) as answers:
        disturbed = await asyncio.gather(*(stream(client, prompt, begun) for prompt in prompts))
    assert waiting == 0
    assert disturbed == undisturbed
    assert len(set(answers)) == 1


@pytest.mark.parametrize("kind", ["worker", "tokenizer"])
async def test_whom_nobody_would_answer_is_told_so_at_once(mesh: RunningMesh, client: AsyncOpenAI, kind: str):
    """All of a kind are stopped (SIGSTOP): `/ready` and `/v1/models` say so, who asks is refused; then all goes on."""
    pids = [member.pid for name, member in mesh.members().items() if name.startswith(f"{kind}.{TINY}.")]
    before = await client.chat.completions.create(**greedy("Still there?", max_tokens=4))

    async def told() -> tuple[int, dict[str, bool]]:
        async with httpx.AsyncClient(base_url=mesh.rest) as balancer:
            ready = await balancer.get("/ready")
        return ready.status_code, {model.id: model.model_extra["ready"] async for model in client.models.list()}

    all_ready = (200, {TINY: True, COUNTED: False})
    assert await told() == all_ready
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        if kind == "tokenizer":  # even before the silence is noticed nobody waits for as long as a call may take
            await refused(client, *REFUSED_WITHOUT[kind])
        await eventually(told, lambda now: now == (503, {TINY: False, COUNTED: False}), "not ready")
        await refused(client, *REFUSED_WITHOUT[kind])
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await eventually(told, lambda now: now == all_ready, "ready again", timeout_s=30)
    after = await client.chat.completions.create(**greedy("Still there?", max_tokens=4))
    assert after.choices == before.choices


async def refused(client: AsyncOpenAI, reason: str, words: str) -> None:
    """Ask: 503 with the reason, the sentence and a time to come back."""
    with pytest.raises(InternalServerError) as refusal:
        await client.chat.completions.create(**greedy("Still there?", max_tokens=4))
    error = refusal.value
    assert (error.status_code, error.body["reason"]) == (503, reason), error.body
    assert words in error.body["message"]
    assert int(error.response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "stops_first",
    [
        pytest.param(False, id="killed", marks=pytest.mark.long),  # the other one is killed in the end, too
        pytest.param(True, id="hangs, then killed"),
    ],
)
async def test_the_last_good_configuration_serves_without_control(mesh, client: AsyncOpenAI, stops_first: bool):
    """Fault 20: requests go on while the control plane is away, and when it is back everything is as it was."""
    before = await ready_endpoints(mesh, registry_pb2.SERVICE_KIND_WORKER, TINY)
    whole = await stream(client, "Without control.")
    pid = pid_of(mesh, "control")
    async with asked_all_the_time(client) as answers:
        if stops_first:
            os.kill(pid, signal.SIGSTOP)
            assert await stream(client, "Without control.") == whole
        os.kill(pid, signal.SIGKILL)
        assert await stream(client, "Without control.") == whole
        await restarted(mesh, "control", pid)
        await ready(mesh)
        count = len(answers)
        await eventually(_returning(lambda: len(answers)), lambda now: now > count + 3, "more answers")
    assert len(set(answers)) == 1
    assert await ready_endpoints(mesh, registry_pb2.SERVICE_KIND_WORKER, TINY) == before
    assert await stream(client, "Without control.") == whole


async def restarted(mesh: RunningMesh, name: str, old_pid: int) -> None:
    """Wait until the supervisor has started another process under this name."""
    await eventually(
        _returning(lambda: mesh.members()[name]), lambda member: member.pid not in (None, old_pid), f"a new {name}"
    )


def _returning(look: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        return look()

    return ask
