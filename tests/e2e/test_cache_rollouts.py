"""Rollouts of the cache in a real mesh: recalls follow their lane, and a build whose store is broken is taken back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import serin_cache_svc
from harness.asking import greedy
from harness.clients import plain_openai
from harness.eventually import eventually
from harness.instances import ready_registrations
from harness.running_mesh import RunningMesh
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.control.v1 import registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

pytestmark = pytest.mark.long

DEMO_MODEL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
NUM_SESSIONS = 24
VERDICT_S = 420
"""Two minutes of warm-up, a block of sessions, and the half minute that a session is watched; on a slow machine."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The demo model and a second version of the cache beside the declared one."""
    declaration = f"models:\n  small: {{path: {DEMO_MODEL}, precision: float32, numerics: invariant}}\n"
    running = RunningMesh(tmp_path_factory.mktemp("caches") / "state", declaration)
    running.start()
    running.serin("add", "cache", "--version", "v2")
    yield running
    running.stop()


def start(mesh: RunningMesh, version: str) -> str:
    """Half of the sessions to a version of the cache; nothing is promoted by itself within a test."""
    asked = ("--model", "small", "--service", "cache", "--to", version, "--intent", "same", "--steps", "50%")
    return mesh.serin("rollout", "start", *asked, "--min-samples", "100000").split()[-1]


async def rollout(mesh: RunningMesh, rollout_id: str) -> rollout_pb2.Rollout:
    """A rollout as it is now."""
    async with connect(mesh.control, ServiceSettings(), service="control") as channel:
        stub = rollout_pb2_grpc.RolloutServiceStub(channel)
        return (await stub.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id=rollout_id))).rollout


async def recalls(mesh: RunningMesh) -> dict[str, tuple[int, int]]:
    """Recalls that found a stored answer and those that did not, by version of the cache."""
    found = {}
    for cache in await ready_registrations(mesh, registry_pb2.SERVICE_KIND_CACHE):
        async with connect(cache.endpoint, ServiceSettings(), service="cache") as channel:
            stats = await cache_pb2_grpc.CacheServiceStub(channel).GetStats(cache_pb2.GetStatsRequest())
        found[cache.version] = (stats.answer_hit_count, stats.answer_miss_count)
    return found


async def ask(mesh: RunningMesh, prefix: str, count: int = NUM_SESSIONS) -> list[str]:
    """Ask a question in so many sessions; the lane of each answer."""
    async with plain_openai(f"{mesh.rest}/v1", mesh.key) as client:
        answers = [
            await client.chat.completions.create(
                **greedy(f"What is {n} + {n}?", model="small", max_tokens=4),
                extra_headers={"x-session-id": f"{prefix}-{n}"},
                extra_body={"allow_cached_answer": True},
            )
            for n in range(count)
        ]
    return [answer.system_fingerprint or "" for answer in answers]


async def test_recalls_go_to_the_cache_of_their_lane(mesh: RunningMesh):
    """Each request's, and no other; sessions stay; what one cache kept the other finds; the judge hears of it."""
    await ask(mesh, "before")
    assert (await recalls(mesh))["v2"] == (0, 0)
    rollout_id = start(mesh, "v2")
    split = await eventually(lambda: rollout(mesh, rollout_id), lambda r: r.weight_percent == 50, "the split")
    lanes = await eventually(lambda: ask(mesh, "s"), lambda seen: split.canary_lane in seen, "sessions on the canary")
    assert set(lanes) == {split.stable_lane, split.canary_lane}
    counted = await recalls(mesh)
    assert await ask(mesh, "s") == lanes
    after = await recalls(mesh)
    for version, lane in (("v1", split.stable_lane), ("v2", split.canary_lane)):
        (hits, misses), (hits_before, misses_before) = after[version], counted[version]
        assert (hits - hits_before, misses - misses_before) == (lanes.count(lane), 0)
    assert after["v2"][1] == 0
    num_exposed = lanes.count(split.canary_lane)
    await eventually(lambda: rollout(mesh, rollout_id), lambda r: r.exposed_session_count == num_exposed, "exposure")
    mesh.serin("rollout", "abort", rollout_id)


@pytest.mark.timeout(900)
async def test_a_build_whose_store_is_broken_is_taken_back(mesh: RunningMesh, tmp_path: Path):
    """No request fails for it: it is the recalls that failed."""
    build = tmp_path / "serin_cache_svc"
    shutil.copytree(Path(serin_cache_svc.__file__).parent, build, ignore=shutil.ignore_patterns("__pycache__"))
    store = build / "store" / "redis_store.py"
    code = store.read_text(encoding="utf-8")
    broken = code.replace("await self._redis.get(_key(group_tag, key))", 'await self._redis.get("no", "such call")')
    assert broken != code
    store.write_text(broken.replace("except (RedisError, OSError)", "except (RedisError, OSError, TypeError)"))
    mesh.serin("add", "cache", "--version", "broken", "--code", str(tmp_path))
    rollout_id = start(mesh, "broken")
    number = 0

    async def asked_more() -> rollout_pb2.Rollout:
        nonlocal number
        number += 1
        await ask(mesh, f"many-{number}", 8)
        return await rollout(mesh, rollout_id)

    ended = (rollout_pb2.ROLLOUT_STATE_ABORTED, rollout_pb2.ROLLOUT_STATE_PROMOTED)
    done = await eventually(asked_more, lambda r: r.state in ended, "a verdict", timeout_s=VERDICT_S)
    assert done.state == rollout_pb2.ROLLOUT_STATE_ABORTED
    assert "recalls that failed" in done.reason
    errors = next(verdict for verdict in done.verdicts if verdict.metric == "errors")
    assert errors.canary_value == 0.0
