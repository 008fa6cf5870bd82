"""What is observed of two versions reaches the judge of a rollout: exposure, golden questions, shadow scores."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from harness.asking import greedy
from harness.clients import plain_http, plain_openai
from harness.eventually import eventually
from harness.keys import mint
from harness.running_mesh import RunningMesh
from serin.control.v1 import registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_gateway.keys import Role
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

pytestmark = pytest.mark.long

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small"
NUM_QUESTIONS = 12


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The demo model in both versions; all traffic is on the first."""
    declaration = f"""\
models:
  small:
    precision: float32
    numerics: invariant
    versions:
      v1: {{path: {MODELS / "v1"}, weight: 100}}
      v2: {{path: {MODELS / "v2"}, weight: 0}}
"""
    running = RunningMesh(tmp_path_factory.mktemp("observed") / "state", declaration)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def rollouts(mesh: RunningMesh) -> AsyncIterator["rollout_pb2_grpc.RolloutServiceAsyncStub"]:
    """The control plane's RolloutService; whatever a test has started is taken back."""
    async with connect(mesh.control, ServiceSettings(), service="control") as channel:
        stub = rollout_pb2_grpc.RolloutServiceStub(channel)
        yield stub
        for rollout in (await stub.ListRollouts(rollout_pb2.ListRolloutsRequest())).rollouts:
            if rollout.state not in (rollout_pb2.ROLLOUT_STATE_PROMOTED, rollout_pb2.ROLLOUT_STATE_ABORTED):
                act = rollout_pb2.ActOnRolloutRequest(
                    rollout_id=rollout.rollout_id, action=rollout_pb2.ROLLOUT_ACTION_ABORT, actor="test"
                )
                await stub.ActOnRollout(act)


async def start(rollouts, intent: int, golden: str = "") -> str:
    """Half of the sessions to v2; nothing is promoted by itself within a test."""
    request = rollout_pb2.StartRolloutRequest(
        model="small",
        service=registry_pb2.SERVICE_KIND_WORKER,
        to_version="v2",
        intent=intent,
        steps=[rollout_pb2.RolloutStep(weight_percent=50, min_sample_count=100_000, max_seconds=86_400)],
        golden_jsonl=golden,
        accept_weak=True,
        actor="test",
    )
    started = await eventually(
        lambda: rollouts.StartRollout(request), lambda answer: answer.rollout_id, "a rollout to start"
    )
    return started.rollout_id


async def when(rollouts, rollout_id: str, holds: Callable[[rollout_pb2.Rollout], object]) -> rollout_pb2.Rollout:
    """The rollout, as soon as something holds of it."""

    async def look() -> rollout_pb2.Rollout:
        return (await rollouts.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id=rollout_id))).rollout

    return await eventually(look, holds, "the rollout", timeout_s=60)


async def ask(mesh: RunningMesh, key: str, count: int, prefix: str) -> list:
    """Ask so many questions, each in a session of its own."""
    async with plain_openai(f"{mesh.rest}/v1", key) as client:
        return [
            await client.chat.completions.create(
                **greedy(f"What is {n} + {n}?", model="small", max_tokens=8),
                extra_headers={"x-session-id": f"{prefix}-{n}"},
            )
            for n in range(count)
        ]


async def num_shadowed(mesh: RunningMesh, viewer: str) -> int:
    """Answers that were scored on two lanes so far."""
    async with plain_http(headers={"authorization": f"Bearer {viewer}"}, timeout=10) as http:
        text = (await http.get(f"{mesh.rest}/metrics")).text
    name = 'serin_gateway_shadow_scores_total{outcome="scored"}'
    line = next(line for line in text.splitlines() if line.startswith(name))
    return round(float(line.split()[-1]))


def verdict(rollout: rollout_pb2.Rollout, metric: str) -> rollout_pb2.MetricVerdict | None:
    """What is said of a metric, if anything is."""
    return next((one for one in rollout.verdicts if one.metric == metric), None)


async def test_a_better_version_is_seen_in_golden_questions_traffic_and_feedback(mesh: RunningMesh, rollouts):
    """v2 adds better than v1; its sessions and requests are counted, and what callers say of answers arrives."""
    golden = "\n".join(
        json.dumps(
            {
                "id": f"sum-{n}",
                "messages": [{"role": "user", "content": f"What is {n} + {2 * n}?"}],
                "expect": {"regex": rf"\b{3 * n}\b"},
                "max_tokens": 16,
            }
        )
        for n in range(1, NUM_QUESTIONS + 1)
    )
    rollout_id = await start(rollouts, rollout_pb2.ROLLOUT_INTENT_BETTER, golden)
    done = await when(
        rollouts, rollout_id, lambda r: (found := verdict(r, "golden")) and found.sample_count == NUM_QUESTIONS
    )
    found = verdict(done, "golden")
    assert found.canary_value > found.stable_value
    answers = await ask(mesh, mesh.key, 24, "better")
    on_canary = [answer for answer in answers if answer.system_fingerprint == done.canary_lane]
    assert 0 < len(on_canary) < 24
    seen = await when(rollouts, rollout_id, lambda r: r.exposed_request_count >= len(on_canary))
    assert (seen.exposed_request_count, seen.exposed_session_count) == (len(on_canary), len(on_canary))
    async with plain_http(headers={"authorization": f"Bearer {mesh.key}"}, timeout=10) as http:
        for answer in answers:
            given = await http.post(f"{mesh.rest}/v1/feedback", json={"request_id": answer.id, "score": "up"})
            assert given.json()["counted"]


async def test_answers_that_must_not_change_are_scored_on_both_lanes(mesh: RunningMesh, rollouts):
    """A share of stable's answers, and none of those whose key refuses."""
    (viewer, _), (private, _) = await mint(mesh, role=Role.VIEWER), await mint(mesh, shadow=False)
    before = await num_shadowed(mesh, viewer)
    await start(rollouts, rollout_pb2.ROLLOUT_INTENT_SAME)
    await ask(mesh, private, 40, "private")
    assert await num_shadowed(mesh, viewer) == before

    async def asked_more() -> int:
        await ask(mesh, mesh.key, 20, "open")
        return await num_shadowed(mesh, viewer)

    await eventually(asked_more, lambda count: count > before, "shadow scores", timeout_s=60)


async def test_an_abort_cuts_no_running_answer(mesh: RunningMesh, rollouts):
    """Streams on both versions run on to their own end where they are; whoever comes after it is on the old one."""
    rollout_id = await start(rollouts, rollout_pb2.ROLLOUT_INTENT_BETTER)
    split = await when(rollouts, rollout_id, lambda r: r.weight_percent == 50 and r.canary_lane)
    await eventually(
        lambda: ask(mesh, mesh.key, 6, "before"),
        lambda answers: split.canary_lane in {answer.system_fingerprint for answer in answers},
        "sessions on the canary",
    )
    under_way = asyncio.Semaphore(0)

    async def streamed(session: str) -> tuple[set[str | None], str, str | None]:
        """The lanes an answer came from, its text and how it ended."""
        lanes, text, reason, heard = set(), "", None, False
        ask = greedy("Count.", model="small", max_tokens=400, extra_body={"ignore_eos": True})
        async with plain_openai(f"{mesh.rest}/v1", mesh.key, 120) as client:
            async for chunk in await client.chat.completions.create(
                **ask, stream=True, extra_headers={"x-session-id": session}
            ):
                lanes.add(chunk.system_fingerprint)
                text += chunk.choices[0].delta.content or ""
                reason = chunk.choices[0].finish_reason or reason
                if text and not heard:
                    heard = True
                    under_way.release()
        return lanes, text, reason

    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        streams = [group.create_task(streamed(f"abort-{n}")) for n in range(12)]
        for _ in streams:
            await under_way.acquire()
        assert not any(stream.done() for stream in streams)
        act = rollout_pb2.ActOnRolloutRequest(
            rollout_id=rollout_id, action=rollout_pb2.ROLLOUT_ACTION_ABORT, actor="test"
        )
        assert (await rollouts.ActOnRollout(act)).effective
    answers = [stream.result() for stream in streams]
    assert {frozenset(lanes) for lanes, _, _ in answers} == {
        frozenset({split.stable_lane}),
        frozenset({split.canary_lane}),
    }
    assert {reason for _, _, reason in answers} == {"length"}
    for lane in (split.stable_lane, split.canary_lane):
        assert len({text for lanes, text, _ in answers if lane in lanes}) == 1
    after = await ask(mesh, mesh.key, 12, "after")
    assert {answer.system_fingerprint for answer in after} == {split.stable_lane}
