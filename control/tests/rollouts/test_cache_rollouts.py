"""Rollouts of the cache: sessions move from lane to lane as in any other, and only the cache differs."""

from dataclasses import replace

import pytest
from control_builders import instance, pair
from control_engine import ANN, Stage
from control_rollouts import rollout, spec, versions
from serin_control.errors import RolloutInvalid
from serin_control.instance import Formats, Service
from serin_control.judge.observation import Observation
from serin_control.judge.verdict import Verdict
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.desk import Action
from serin_control.rollouts.formats import foreign_formats
from serin_control.rollouts.rollout import Arms, Rollout, State
from serin_control.rollouts.sight import arms_for, look
from serin_control.rollouts.standing import DRAIN_S
from serin_control.rollouts.steering import steered

SHARED = {Service.CACHE: "v1"}
OLD, NEW = versions("v1"), (*versions("v1"), (Service.CACHE, "v2"))
PLAIN = (Share(OLD, 100),)


def cache(version: str, written: int = 1, read: tuple[int, ...] = (1,), **fields):
    """A cache of a version, which announces what it writes and reads."""
    one = instance(f"c-{version}", Service.CACHE, version, **fields)
    return replace(one, registration=replace(one.registration, formats=Formats(written, read)))


def moving(**changes):
    """The cache from v1 to v2."""
    return spec(service=Service.CACHE, **changes)


@pytest.fixture
def stage(clock) -> Stage:
    """A control plane of a mesh with two caches, of which v1 is declared, and two workers."""
    running = [*pair("v1"), instance("w2", version="v2"), cache("v1"), cache("v2")]
    stage = Stage(clock, instances=running)
    stage.plan = replace(stage.plan, service_shares={Service.CACHE: {"v1": 1}})
    return stage


def weights(stage: Stage) -> dict[tuple[str, str], int]:
    """Weight of each published lane, by its worker and the cache of its own; empty: the shared one."""
    sets = {lane.versions: lane.weight for lane in stage.topology().models[0].lanes}
    return {(dict(v)[Service.WORKER], dict(v).get(Service.CACHE, "")): weight for v, weight in sets.items()}


async def started(stage: Stage, asked=None) -> Rollout:
    """A rollout at its first step."""
    await stage.look()
    begun = await stage.desk.start(asked or moving(), "", ANN)
    await stage.look()
    await stage.look()
    return begun


async def promoted(stage: Stage, asked=None) -> Rollout:
    """A rollout whose judge found it good at every step."""
    begun = await started(stage, asked)
    number = 0
    while (now := await stage.desk.get(begun.id)).state is not State.PROMOTED:
        stage.arbiter(begun.id).verdict = Verdict.PROMOTE
        for _ in range(10):
            number += 1
            stage.engine.bench.observe("small", Observation(f"r{number}", now.canary_lane, number, stage.clock()))
        await stage.look()
        assert number < 200, now
    return now


async def test_sessions_move_to_the_new_cache_and_stay(stage):
    """Step by step; the old set keeps 1 of 10,000, and the new one is what it was but for its cache."""
    begun = await started(stage)
    assert (begun.from_version, begun.reason) == ("v1", "started")
    assert weights(stage) == {("v1", ""): 9_900, ("v1", "v2"): 100}
    await stage.desk.act(begun.id, Action.ABORT, ANN, "")
    ended = await promoted(stage)
    assert weights(stage) == {("v1", "v2"): 9_999, ("v1", ""): 1}
    assert (ended.arms.canary, ended.arms.compared) == (NEW, OLD)


async def test_a_bad_cache_loses_its_sessions(stage):
    """It drains without new sessions, and then has no lane."""
    begun = await started(stage)
    stage.arbiter().verdict = Verdict.ABORT
    stage.engine.bench.observe("small", Observation("r", stage.engine.sight(begun).canary_lane, 1, stage.clock()))
    await stage.look()
    assert weights(stage) == {("v1", ""): 10_000, ("v1", "v2"): 0}
    await stage.look(DRAIN_S)
    assert weights(stage) == {("v1", ""): 10_000}


async def test_a_new_cache_that_is_gone_holds_the_rollout(stage):
    """Its lane would be answered without it, and that is not what is judged: its sessions go back meanwhile."""
    begun = await started(stage)
    stage.running = [one for one in stage.running if one.registration.instance != "c-v2"]
    await stage.look()
    now = await stage.desk.get(begun.id)
    assert (now.state, now.weight) == (State.PAUSED, 0)
    assert weights(stage) == {("v1", ""): 10_000, ("v1", "v2"): 0}


async def test_going_back_is_one_command(stage):
    """To what was before, or by the version of the cache that lanes share; and forward again."""
    await promoted(stage)
    assert (await stage.desk.rollback("small", "", ANN, "")).version == "v1"
    assert weights(stage)[("v1", "")] == 9_999
    assert (await stage.desk.rollback("small", "v2", ANN, "")).version == "v2"
    assert weights(stage)[("v1", "v2")] == 9_999
    assert (await stage.desk.rollback("small", "v1", ANN, "")).version == "v1"
    assert weights(stage)[("v1", "")] == 9_999


async def test_a_cache_that_was_promoted_stays_when_a_worker_moves(stage):
    """The next rollout moves the worker alone."""
    await promoted(stage)
    await promoted(stage, spec())
    assert weights(stage)[("v2", "v2")] >= 9_998


async def test_what_is_not_shared_is_said_at_the_start(stage):
    """To whoever starts it, and in the history."""
    stage.running = [*stage.running[:-1], cache("v2", 2, (2,))]
    begun = await started(stage)
    assert begun.reason.startswith("started; v1 does not read format 2")
    found, _ = await stage.desk.history(begun.id, 10, "")
    assert "100 %; v1 does not read format 2" in found[-1].reason


def test_a_rollout_needs_a_version_that_runs_and_is_another():
    """The declared version is what lanes without a cache of their own have already."""
    running = [*pair("v1"), cache("v1"), cache("v2")]
    assert arms_for(moving(), PLAIN, running, SHARED) == Arms(PLAIN, NEW)
    with pytest.raises(RolloutInvalid, match="to_version: 'v1': small runs it already"):
        arms_for(moving(to_version="v1"), PLAIN, running, SHARED)
    with pytest.raises(RolloutInvalid, match="nobody announces cache v9: accepted: v1, v2; `serin add cache"):
        arms_for(moving(to_version="v9"), PLAIN, running, SHARED)
    back = (Share(NEW, 100),)
    assert arms_for(moving(to_version="v1"), back, running, SHARED).canary == (*OLD, (Service.CACHE, "v1"))


def test_both_arms_are_seen():
    """Two lanes of one vocabulary; the new one takes calls while its cache does."""
    arms = Arms(PLAIN, NEW)
    seen = look(moving(), arms, [*pair("v1"), cache("v1"), cache("v2")])
    assert (seen.able, seen.same_vocabulary, seen.stable_lane != seen.canary_lane) == (True, True, True)
    assert seen.starts == frozenset({("c-v2", 0.0)})
    assert not look(moving(), arms, [*pair("v1"), cache("v1")]).able


def test_no_answer_is_scored_twice_for_a_cache():
    """Both lanes have the same workers: scores would say nothing."""
    running = rollout(
        spec={"service": Service.CACHE}, arms=Arms(PLAIN, NEW), weight=100, stable_lane="a", canary_lane="b"
    )
    plan = steered(ModelPlan("small", shares=PLAIN), None, running)
    assert plan.trial.shadow_rate == 0.0


def test_its_judge_looks_at_caches():
    """By the metrics of caches, of which tolerances may be given; no other rollout knows them."""
    court = JudgeCourt()
    court.check(moving(tolerances={"cache_hit_rate": 0.1, "recall_errors": 0.01}))
    with pytest.raises(RolloutInvalid, match="recall_errors: accepted where a cache is rolled out only"):
        court.check(spec(tolerances={"recall_errors": 0.01}))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (cache("v1"), cache("v2"), ""),
        (cache("v1", 1, (1, 2)), cache("v2", 2, (2, 1)), ""),
        (cache("v1"), cache("v2", 2, (2, 1)), "v1 does not read format 2, which v2 writes under keys of its own"),
        (
            cache("v1"),
            cache("v2", 2, (2,)),
            "v1 does not read format 2, which v2 writes under keys of its own; v2 does not read format 1 and begins "
            "with no stored answers",
        ),
        (cache("v1", 0, ()), cache("v2", 2, (2,)), ""),
    ],
)
def test_who_starts_a_rollout_is_told_what_is_not_shared(old, new, said):
    """Each side keeps what the other cannot read apart; a cold beginning is no surprise then."""
    assert foreign_formats(moving(), "v1", [old, new]) == said
