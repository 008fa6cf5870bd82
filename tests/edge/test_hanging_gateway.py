"""A gateway of several that hangs: its calls end, the others' go on, and it serves again when it moves again.

What must not be taken for that: one that stands still for seconds, one that waits, one that drains.
"""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from subprocess import Popen
from typing import Any

import grpc
import httpx
import pytest
from harness.asking import greedy
from harness.clients import plain_http
from harness.eventually import eventually
from harness.further_gateways import further_gateway, serves
from harness.running_mesh import RunningMesh
from harness.two_vocabularies import PAIR
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

AT_ONCE = 4
"""Calls of each kind; of two gateways one has none of them now and then."""
MAX_ROUNDS = 5
NUM_TOKENS = 400
ENDS_WITHIN_S = 30.0
"""Three times what the edge needs: less than a caller's patience, and than HTTP/2's pings to other services."""
STANDSTILL_S = 3.0
WAITS_S = 12.0
"""Longer than what hangs is borne, shorter than gateways wait for a silent worker that nobody can stand in for."""

WHOLE = "whole"
CUT = "cut"
Call = Callable[[asyncio.Event], Coroutine[Any, Any, str]]


class Further:
    """The gateway that is harmed, a process beside the mesh's own."""

    def __init__(self, process: "Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    async def num_finished(self) -> int:
        """Requests that it has served."""
        return self._log.read_text(encoding="utf-8").count('"request.finished"')


@pytest.fixture
async def http(edged: RunningMesh, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the edge."""
    headers = {"authorization": f"Bearer {edged.key}"}
    async with httpx.AsyncClient(base_url=edged.record["edge"], verify=trust, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
async def further(edged: RunningMesh, http: httpx.AsyncClient, tmp_path: Path) -> AsyncIterator[Further]:
    """One more gateway of the version that the mesh has; the edge knows it."""
    with further_gateway(edged, "further", tmp_path, "--drain-grace-s", "60") as (url, process):
        async with plain_http(timeout=10) as direct:
            direct.headers["authorization"] = f"Bearer {edged.key}"
            await eventually(lambda: serves(direct, url, PAIR), bool, f"{url} serves")
        one = Further(process, tmp_path / "further.log")
        await takes_calls(http, one)
        yield one


async def takes_calls(http: httpx.AsyncClient, further: Further) -> None:
    """Wait until the edge gives it some of the calls."""
    before = await further.num_finished()

    async def ask() -> int:
        for _ in range(AT_ONCE):
            assert (await http.get("/v1/models")).status_code == 200
        return await further.num_finished()

    await eventually(ask, lambda now: now > before, "calls to the further gateway")


@pytest.fixture
def calls(http: httpx.AsyncClient, front_door: grpc.aio.Channel, bearer) -> dict[str, Call]:
    """The kinds of calls: each says when it has begun, and how it ended."""
    body = greedy("Go on.", model=PAIR, max_tokens=NUM_TOKENS)
    generate = inference_pb2_grpc.InferenceServiceStub(front_door).Generate

    async def whole(begun: asyncio.Event) -> str:
        begun.set()
        answer = await http.post("/v1/chat/completions", json=body)
        if answer.status_code == 503 and answer.json()["error"]["code"] == "edge_503":
            return CUT
        assert answer.status_code == 200, answer.text
        return WHOLE

    async def streamed(begun: asyncio.Event) -> str:
        text = ""
        try:
            async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
                async for piece in answer.aiter_text():
                    begun.set()
                    text += piece
        except httpx.RemoteProtocolError:
            return CUT
        assert text.endswith("data: [DONE]\n\n"), text[-500:]
        return WHOLE

    async def over_grpc(begun: asyncio.Event) -> str:
        request = inference_pb2.GenerateRequest(model=PAIR, prompt="Go on.", sampling={"max_tokens": NUM_TOKENS})
        last = None
        try:
            async for event in generate(request, timeout=60, metadata=bearer):
                begun.set()
                last = event.WhichOneof("event")
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                raise
            return CUT
        assert last == "summary"
        return WHOLE

    return {"whole": whole, "streamed": streamed, "gRPC": over_grpc}


class Begun:
    """Some calls of each kind, all of which have begun."""

    def __init__(self) -> None:
        self._tasks: dict[str, list[asyncio.Task[str]]] = {}

    @classmethod
    async def of(cls, calls: dict[str, Call]) -> "Begun":
        """Begin them."""
        self, events = cls(), []
        for kind, call in calls.items():
            for _ in range(AT_ONCE):
                events.append(asyncio.Event())
                self._tasks.setdefault(kind, []).append(asyncio.create_task(call(events[-1])))
        async with asyncio.timeout(60):
            await asyncio.gather(*(event.wait() for event in events))
        return self

    @property
    def num_running(self) -> int:
        """How many have not ended."""
        return sum(not task.done() for tasks in self._tasks.values() for task in tasks)

    async def ended(self) -> dict[str, list[str]]:
        """How each of them ended."""
        async with asyncio.timeout(ENDS_WITHIN_S):
            return {kind: list(await asyncio.gather(*tasks)) for kind, tasks in self._tasks.items()}


async def test_calls_of_a_gateway_that_hangs_end(further: Further, http: httpx.AsyncClient, calls: dict[str, Call]):
    """Each kind of call is cut at the one that hangs and goes on at the other; then both serve again."""
    cut: set[str] = set()
    whole: set[str] = set()
    for _ in range(MAX_ROUNDS):
        begun = await Begun.of(calls)
        further.process.send_signal(signal.SIGSTOP)
        try:
            found = await begun.ended()
        finally:
            further.process.send_signal(signal.SIGCONT)
        print(found)
        await takes_calls(http, further)
        cut |= {kind for kind, ends in found.items() if CUT in ends}
        whole |= {kind for kind, ends in found.items() if WHOLE in ends}
        if cut == whole == set(calls):
            return
    pytest.fail(f"in {MAX_ROUNDS} rounds only {cut} had calls at the gateway that hangs, and {whole} at the other")


@pytest.mark.long
async def test_one_that_stands_still_for_seconds_keeps_its_calls(further: Further, calls: dict[str, Call]):
    """A machine that is busy, a collection of garbage: nothing is cut."""
    begun = await Begun.of(calls)
    further.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STANDSTILL_S)
    assert begun.num_running, "it holds none"
    further.process.send_signal(signal.SIGCONT)
    assert await begun.ended() == dict.fromkeys(calls, [WHOLE] * AT_ONCE)


@pytest.mark.long
async def test_one_that_waits_while_it_drains_keeps_its_calls(
    edged: RunningMesh, further: Further, calls: dict[str, Call]
):
    """Silent workers make it wait for longer than one that hangs would be borne, in the middle of its drain."""
    workers = [member.pid for name, member in edged.members().items() if name.startswith("worker")]
    begun = await Begun.of(calls)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        further.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(WAITS_S)
        assert begun.num_running, "nothing had to wait"
        assert further.process.poll() is None, "it holds none"
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert await begun.ended() == dict.fromkeys(calls, [WHOLE] * AT_ONCE)
