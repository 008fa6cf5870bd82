"""Faults 1 to 7, 9 and 25: what becomes of running answers when workers die, hang, drain or compute nonsense.

All of it in `numerics: invariant`: what is resumed equals the undisturbed answer. Pauses are printed, not judged.
"""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import jsonschema
import pytest
from harness.asking import question
from harness.crowd import NO_NUMBER, NUM_WORKERS, SMALL
from harness.gateway_log import GatewayLog
from harness.metrics import await_metrics, read_metrics
from harness.running_mesh import RunningMesh
from harness.streamed import Streamed, stream_chat
from harness.wire_errors import error_info
from harness.workers import Workers
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

NUM_STREAMS = 4
LONG = 250
"""Tokens of an answer: some seconds, with several at once."""

NEVER_SPECIAL = {str(token_id): -100 for token_id in range(256, 265)}

GREEDY = {"temperature": 0}
SEEDED = {"temperature": 0.9, "top_p": 0.95, "seed": 17}
RICH = {**SEEDED, "n": 2, "logprobs": True, "top_logprobs": 2, "frequency_penalty": 0.3, "repetition_penalty": 1.1}
WORDS = {"type": "array", "items": {"type": "string", "minLength": 20, "maxLength": 40}, "minItems": 6, "maxItems": 6}
JSON = {
    **SEEDED,
    "max_tokens": 800,
    "response_format": {"type": "json_schema", "json_schema": {"name": "words", "schema": WORDS, "strict": True}},
}
RICH_JSON = {**RICH, **JSON}
KILLED, SILENT, DRAINING = "killed", "silent", "draining"
MAX_ROUNDS = 3


@pytest.fixture(autouse=True)
async def endpoints(workers: Workers) -> dict[str, str]:
    """Each test begins with a worker that may be harmed and another one, ready; where their metrics are, by name."""
    return await workers.ready(2)


@pytest.fixture
async def log(crowd: RunningMesh) -> GatewayLog:
    """What the gateway says of requests."""
    return GatewayLog(crowd)


def asked(number: int, **arguments: Any) -> dict[str, Any]:
    """A question whose answer is long: no special token, such as those that end one, is ever drawn."""
    endless = {"max_tokens": LONG, "logit_bias": NEVER_SPECIAL}
    return question(f"What is {number} plus {number}?", model=SMALL, **endless | arguments)


async def ask_all(
    crowd: RunningMesh, bodies: Sequence[dict[str, Any]], name: str, on_begun: Callable[[], None] = lambda: None
) -> tuple[list[Streamed], list[str]]:
    """Ask everything at once, and say when all answers have begun; answers and request ids."""
    ids = [f"{name}-{number}-{secrets.token_hex(3)}" for number in range(len(bodies))]
    waiting = set(ids)

    def began(request_id: str) -> None:
        if request_id in waiting:
            waiting.discard(request_id)
            if not waiting:
                on_begun()

    async def one(body: dict[str, Any], request_id: str) -> Streamed:
        return await stream_chat(crowd, body, request_id, on_text=lambda _: began(request_id))

    return list(await asyncio.gather(*map(one, bodies, ids))), ids


_undisturbed: dict[str, Streamed] = {}


async def ask_undisturbed(crowd: RunningMesh, bodies: Sequence[dict[str, Any]]) -> list[Streamed]:
    """The answers while nothing is harmed; each question is asked once in this file."""
    keys = [json.dumps(body, sort_keys=True) for body in bodies]
    missing = [(key, body) for key, body in zip(keys, bodies, strict=True) if key not in _undisturbed]
    answers, _ = await ask_all(crowd, [body for _, body in missing], "undisturbed")
    assert all(answer.is_done for answer in answers)
    _undisturbed.update((key, answer) for (key, _), answer in zip(missing, answers, strict=True))
    return [_undisturbed[key] for key in keys]


async def losses(log: GatewayLog, ids: Sequence[str], what: str) -> list[dict[str, Any]]:
    """The workers that these requests lost; their pauses are printed."""
    lost = [lost for request_id in ids for lost in (await log.finished(request_id))["lost_workers"]]
    pauses = sorted(one["pause_s"] for one in lost if one["pause_s"] is not None)
    if pauses:
        print(f"{what}: {len(pauses)} resumes, pause p50 {pauses[len(pauses) // 2]:.3f} s, max {pauses[-1]:.3f} s")
    return lost


def caused(lost: Sequence[dict[str, Any]]) -> set[str]:
    """Why workers were lost. On a machine that is held up for seconds, silence may be among it without any fault."""
    return {one["cause"] for one in lost}


async def busiest(workers: Workers, endpoints: dict[str, str]) -> str:
    """Name of a worker that runs something."""
    return (await workers.busy(endpoints))[0]


async def harmed(
    crowd: RunningMesh,
    bodies: Sequence[dict[str, Any]],
    name: str,
    workers: Workers,
    endpoints: dict[str, str],
    *signals: signal.Signals,
) -> tuple[str, int, list[Streamed], list[str]]:
    """Ask everything at once, and signal a worker that runs something of it: its name and pid, answers, request ids."""
    begun = asyncio.Event()
    asking = asyncio.create_task(ask_all(crowd, bodies, name, begun.set))
    await begun.wait()
    victim = await busiest(workers, endpoints)
    pid, *_ = [workers.harm(victim, one) for one in signals]
    return victim, pid, *await asking


def with_stop(undisturbed: Streamed) -> str:
    """A string that occurs in an answer, late, and not before."""
    text = undisturbed.choices[0].text
    for start in range(int(len(text) * 0.7), len(text) - 6):
        if text.index(text[start : start + 6]) == start:
            return text[start : start + 6]
    raise AssertionError(f"nothing in the answer occurs late for the first time: {text!r}")


def counted(seen: Streamed) -> tuple[int, int]:
    """Tokens of prompt and answers; how many of them were cached depends on who asked before."""
    assert seen.usage is not None
    return seen.usage["prompt_tokens"], seen.usage["completion_tokens"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(GREEDY, id="greedy", marks=pytest.mark.long),  # a stopped worker's are, too
        pytest.param(SEEDED, id="seeded", marks=pytest.mark.long),  # the next one is seeded too
        pytest.param(RICH, id="n=2, stop, logprobs, penalties", marks=pytest.mark.long),  # so are the next ones
        pytest.param(JSON, id="JSON schema", marks=pytest.mark.long),
        pytest.param(RICH_JSON, id="JSON schema, n=2, stop, logprobs, penalties"),
    ],
)
async def test_answers_survive_a_killed_worker(crowd, workers: Workers, endpoints, log, arguments: dict[str, Any]):
    """Faults 1 to 4: SIGKILL in the middle of answers; all equal the undisturbed ones, usage too."""
    bodies = [asked(number, **arguments) for number in range(NUM_STREAMS // arguments.get("n", 1))]
    undisturbed = await ask_undisturbed(crowd, bodies)
    if "n" in arguments:
        bodies[0]["stop"] = with_stop(undisturbed[0])
        undisturbed[:1] = await ask_undisturbed(crowd, bodies[:1])
        assert (undisturbed[0].choices[0].finish_reason, undisturbed[0].is_done) == ("stop", True)
    if "response_format" in arguments:
        for one in undisturbed[1:]:  # the first one may have been stopped
            for choice in one.choices.values():
                jsonschema.validate(json.loads(choice.text), WORDS)
    lost: list[dict[str, Any]] = []
    for attempt in range(MAX_ROUNDS):
        victim, pid, disturbed, ids = await harmed(
            crowd, bodies, f"killed-{attempt}", workers, endpoints, signal.SIGKILL
        )
        assert [one.error for one in disturbed] == [None] * len(bodies)
        assert [one.answer for one in disturbed] == [one.answer for one in undisturbed]
        assert [counted(one) for one in disturbed] == [counted(one) for one in undisturbed]
        assert all(one.is_done for one in disturbed)
        lost = await losses(log, ids, "SIGKILL")
        if KILLED in caused(lost):
            return
        await workers.restarted(victim, pid)
        endpoints = await workers.ready()  # its answers had just ended when it died: once more
    pytest.fail(f"no worker died in the middle of an answer: {lost}")


async def test_answers_survive_a_stopped_worker(crowd, workers: Workers, endpoints, log):
    """Fault 7: SIGSTOP. Its answers go on elsewhere, new ones go elsewhere, and when it wakes it holds nothing."""
    bodies = [asked(number, **GREEDY) for number in range(NUM_STREAMS)]
    undisturbed = await ask_undisturbed(crowd, bodies)
    lost: list[dict[str, Any]] = []
    for attempt in range(MAX_ROUNDS):
        begun = asyncio.Event()
        asking = asyncio.create_task(ask_all(crowd, bodies, f"stopped-{attempt}", begun.set))
        await begun.wait()
        victim = await busiest(workers, endpoints)
        pid = workers.harm(victim, signal.SIGSTOP)
        try:
            disturbed, ids = await asking
            assert [one.answer for one in disturbed] == [one.answer for one in undisturbed]
            lost = await losses(log, ids, "SIGSTOP")
            if (victim, SILENT) in {(one["worker"], one["cause"]) for one in lost}:
                others, ids = await ask_all(crowd, bodies, "around")
                assert [one.answer for one in others] == [one.answer for one in undisturbed]
                assert victim not in {(await log.finished(request_id))["worker"] for request_id in ids}
                break
        finally:
            os.kill(pid, signal.SIGCONT)
            endpoints = await workers.ready()
    else:
        pytest.fail(f"no worker was stopped in the middle of an answer: {lost}")
    await await_metrics(endpoints[victim], lambda values: values["vllm:kv_cache_usage_perc"] == 0)


async def test_answers_survive_a_drain_that_is_too_short(crowd, workers: Workers, endpoints, log):
    """Fault 25 and more: SIGTERM twice. What outlives the grace is handed over; nobody calls that a death."""
    bodies = [{**asked(number, **GREEDY), "max_tokens": 500} for number in range(NUM_STREAMS)]
    undisturbed = await ask_undisturbed(crowd, bodies)
    lost: list[dict[str, Any]] = []
    for attempt in range(MAX_ROUNDS):
        twice = (signal.SIGTERM, signal.SIGTERM)
        victim, pid, disturbed, ids = await harmed(crowd, bodies, f"draining-{attempt}", workers, endpoints, *twice)
        assert [one.answer for one in disturbed] == [one.answer for one in undisturbed]
        lost = await losses(log, ids, "SIGTERM")
        assert KILLED not in caused(lost)
        await workers.restarted(victim, pid)
        if DRAINING in caused(lost):
            return
        endpoints = await workers.ready()  # its answers had just ended when it was asked to: once more
    pytest.fail(f"no worker drained in the middle of an answer: {lost}")


async def test_a_request_that_kills_its_workers_is_stopped(crowd, workers: Workers, log):
    """Fault 6: the second worker that dies of it is the last; the third never sees it."""
    endpoints = await workers.ready()
    tokens = {name: (await read_metrics(at))["vllm:generation_tokens_total"] for name, at in endpoints.items()}
    asking = asyncio.create_task(stream_chat(crowd, {**asked(1, **GREEDY), "max_tokens": 1900}, "poison"))
    victims: list[str] = []
    for _ in range(2):
        victim = await busiest(workers, {name: at for name, at in endpoints.items() if name not in victims})
        workers.harm(victim, signal.SIGKILL)
        victims.append(victim)
    seen = await asking
    assert (seen.error, seen.is_done) == ("POISON_REQUEST", False)
    line = await log.finished("poison")
    assert [(one["worker"], one["cause"]) for one in line["lost_workers"]] == [(name, KILLED) for name in victims]
    (third,) = endpoints.keys() - set(victims)
    assert (await read_metrics(endpoints[third]))["vllm:generation_tokens_total"] == tokens[third]


async def test_a_request_whose_logits_are_no_numbers_fails_alone(crowd, workers: Workers, log):
    """Fault 9: one after the other, beside answers that go on; no worker is replaced for it."""
    pids = {name: workers.pid(name) for name in await workers.ready()}
    hostile = question(f"What is {NO_NUMBER}?", model=SMALL, max_tokens=LONG, **GREEDY)
    good = [asked(number, **GREEDY) for number in range(2)]
    alone = await ask_undisturbed(crowd, good)
    asking = asyncio.create_task(ask_all(crowd, good, "beside"))
    for number in range(4 * NUM_WORKERS):
        assert (await stream_chat(crowd, hostile, f"hostile-{number}")).error == "NUMERICS_FAILED"
    beside, _ = await asking
    assert [one.answer for one in beside] == [one.answer for one in alone]
    assert pids == {name: workers.pid(name) for name in await workers.ready()}


async def grpc_answer(crowd: RunningMesh, request_id: str, on_begun: Callable[[], None]) -> tuple[int, str]:
    """A long answer over gRPC: tokens that came, and the reason of the status that ended it."""
    num_tokens = 0
    async with grpc.aio.insecure_channel(crowd.grpc) as channel:
        message = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="What is 1 plus 1?")])
        request = inference_pb2.GenerateRequest(
            model=SMALL,
            chat=inference_pb2.Chat(messages=[message]),
            sampling=sampling_pb2.SamplingParameters(temperature=0, max_tokens=1900, ignore_eos=True),
        )
        metadata = (("authorization", f"Bearer {crowd.key}"), ("serin-request-id", request_id))
        call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request, timeout=120, metadata=metadata)
        try:
            async for event in call:
                num_tokens += len(event.delta.token_ids)
                if num_tokens:
                    on_begun()
        except grpc.aio.AioRpcError as failure:
            return num_tokens, error_info(failure).reason
    return num_tokens, ""


@pytest.fixture
async def massacre(workers: Workers, endpoints) -> AsyncIterator[Callable[[], None]]:
    """Call it, and all workers are killed at once, and again whenever one is back, until the test ends."""
    over = asyncio.Event()
    begins = asyncio.Event()

    async def kill_all() -> None:
        await begins.wait()
        while not over.is_set():
            for name in endpoints:
                with suppress(ProcessLookupError, TypeError):  # it is dead already, and not yet there again
                    workers.harm(name, signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.02)

    killing = asyncio.create_task(kill_all())
    yield begins.set
    over.set()
    begins.set()
    await killing


async def test_z_every_worker_dead_is_said_honestly(crowd, workers: Workers, log, massacre):
    """Fault 5, the last one here: an error event without [DONE] over REST, a status over gRPC, usage so far settled."""
    begun: set[str] = set()

    def began(door: str) -> None:
        begun.add(door)
        if len(begun) == 2:
            massacre()

    body = {**asked(1, **GREEDY), "max_tokens": 1900}
    rest, (num_tokens, reason) = await asyncio.gather(
        stream_chat(crowd, body, "dead-rest", on_text=lambda _: began("rest")),
        grpc_answer(crowd, "dead-grpc", lambda: began("grpc")),
    )
    # The next worker may be dead before or after it has been given the answer: then it is the second one that died.
    assert rest.error in ("LANE_LOST", "POISON_REQUEST")
    assert reason in ("LANE_LOST", "POISON_REQUEST")
    assert not rest.is_done
    line = await log.finished("dead-rest")
    assert line["reason"] == rest.error
    assert line["completion_tokens"] > 0
    assert line["prompt_tokens"] > 0
    over_grpc = await log.finished("dead-grpc")
    assert over_grpc["completion_tokens"] >= num_tokens > 0
