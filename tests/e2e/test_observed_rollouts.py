"""What is observed of two versions reaches the judge of a rollout: exposure, golden questions, shadow scores."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.asking import greedy
from harness.clients import plain_http, plain_openai
from harness.eventually import eventually
from harness.keys import mint
from harness.running_mesh import RunningMesh
from harness.two_vocabularies import PAIR, pair_declaration, write_pair
from serin.control.v1 import registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_gateway.keys import Role
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

pytestmark = pytest.mark.long

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small"
NUM_QUESTIONS = 12


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The demo model in both versions, and one whose versions have two vocabularies; all traffic is on the first."""
    folder = tmp_path_factory.mktemp("observed")
    declaration = f"""\
{pair_declaration(write_pair(folder), {"a": 100, "b": 0})}
  small:
    precision: float32
    numerics: invariant
    versions:
      v1: {{path: {MODELS / "v1"}, weight: 100}}
      v2: {{path: {MODELS / "v2"}, weight: 0}}
"""
    running = RunningMesh(folder / "state", declaration)
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


async def start(rollouts, intent: int, golden: str = "", **asked) -> str:
    """Half of the sessions to v2; nothing is promoted by itself within a test."""
    request = rollout_pb2.StartRolloutRequest(
        **{"model": "small", "service": registry_pb2.SERVICE_KIND_WORKER, "to_version": "v2", **asked},
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


async def ask(mesh: RunningMesh, key: str, count: int, prefix: str, model: str = "small") -> list:
    """Ask so many questions, each in a session of its own."""
    async with plain_openai(f"{mesh.rest}/v1", key) as client:
        return [
            await client.chat.completions.create(
                **greedy(f"What is {n} + {n}?", model=model, max_tokens=8),
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
    async with streams(mesh, "small", [f"abort-{n}" for n in range(12)]) as answers:
        await act(rollouts, rollout_id, rollout_pb2.ROLLOUT_ACTION_ABORT)
    assert {frozenset(lanes) for lanes, _, _ in answers} == {
        frozenset({split.stable_lane}),
        frozenset({split.canary_lane}),
    }
    assert {reason for _, _, reason in answers} == {"length"}
    for lane in (split.stable_lane, split.canary_lane):
        assert len({text for lanes, text, _ in answers if lane in lanes}) == 1
    after = await ask(mesh, mesh.key, 12, "after")
    assert {answer.system_fingerprint for answer in after} == {split.stable_lane}


async def test_answers_of_a_canary_outlive_its_only_tokenizer(mesh: RunningMesh, rollouts):
    """Another vocabulary, so nobody else can write them: they wait until it is back, paused or aborted meanwhile.

    No new session is drawn to the canary until somebody resumes.
    """
    both = {"model": PAIR, "to_version": "b", "also": [registry_pb2.SERVICE_KIND_TOKENIZER]}
    rollout_id = await start(rollouts, rollout_pb2.ROLLOUT_INTENT_BETTER, **both)
    split = await when(rollouts, rollout_id, lambda r: r.weight_percent == 50 and r.canary_lane)
    num_asked = 0

    async def on_canary() -> list[str]:
        """Sessions that have met the canary."""
        nonlocal num_asked
        num_asked += 1
        answers = await ask(mesh, mesh.key, 16, f"tried-{num_asked}", PAIR)
        return [
            f"tried-{num_asked}-{n}" for n, one in enumerate(answers) if one.system_fingerprint == split.canary_lane
        ]

    for is_aborted in (False, True):
        sessions = (await eventually(on_canary, lambda found: len(found) > 2, "sessions on the canary"))[:8]
        async with streams(mesh, PAIR, sessions) as undisturbed:
            pass
        async with streams(mesh, PAIR, sessions) as answers:
            os.kill(mesh.members()[f"tokenizer.{PAIR}.b.0"].pid, signal.SIGKILL)
            if is_aborted:
                await act(rollouts, rollout_id, rollout_pb2.ROLLOUT_ACTION_ABORT)
            await when(rollouts, rollout_id, lambda r: r.weight_percent == 0)
            assert {one.system_fingerprint for one in await ask(mesh, mesh.key, 12, "after", PAIR)} == {
                split.stable_lane
            }
        assert answers == undisturbed
        assert {(frozenset(lanes), reason) for lanes, _, reason in answers} == {
            (frozenset({split.canary_lane}), "length")
        }
        assert {one.system_fingerprint for one in await ask(mesh, mesh.key, 12, "later", PAIR)} == {split.stable_lane}
        if not is_aborted:
            await act(rollouts, rollout_id, rollout_pb2.ROLLOUT_ACTION_RESUME)
            await when(rollouts, rollout_id, lambda r: r.weight_percent == 50)


async def act(rollouts, rollout_id: str, action: int) -> None:
    """Act on a rollout, with effect."""
    asked = rollout_pb2.ActOnRolloutRequest(rollout_id=rollout_id, action=action, actor="test")
    assert (await rollouts.ActOnRollout(asked)).effective


@asynccontextmanager
async def streams(
    mesh: RunningMesh, model: str, sessions: Sequence[str]
) -> AsyncIterator[list[tuple[set[str | None], str, str | None]]]:
    """Long answers, one in each session, that have begun and not ended; after the block, all of them.

    Of each: the lanes that it came from, its text and how it ended.
    """
    under_way = asyncio.Semaphore(0)

    async def streamed(session: str) -> tuple[set[str | None], str, str | None]:
        lanes, text, reason, heard = set(), "", None, False
        ask = greedy("Count.", model=model, max_tokens=400, extra_body={"ignore_eos": True})
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

    answers: list[tuple[set[str | None], str, str | None]] = []
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        tasks = [group.create_task(streamed(session)) for session in sessions]
        for _ in tasks:
            await under_way.acquire()
        assert not any(task.done() for task in tasks)
        yield answers
    answers += [task.result() for task in tasks]
