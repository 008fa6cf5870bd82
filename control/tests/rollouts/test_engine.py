"""Rollouts on their way: traffic follows what is written, whoever leads moves them, nothing is lost or done twice."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from control_builders import OTHER_VOCABULARY, instance, pair
from control_engine import ANN, Stage, declared
from control_rollouts import spec
from serin_control.errors import (
    NotLeading,
    RolloutConflict,
    RolloutInvalid,
    RolloutNotFound,
    RolloutsFrozen,
    StoreDown,
    VersionGone,
)
from serin_control.instance import Service, Status
from serin_control.instance import State as ServiceState
from serin_control.judge.need import Forecast
from serin_control.judge.observation import Beginning, Observation
from serin_control.judge.settings import Intent
from serin_control.judge.verdict import Verdict
from serin_control.rollouts import engine, words
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.desk import NO_REASON, Action
from serin_control.rollouts.leadership import TTL_S
from serin_control.rollouts.presence import HEARD_S
from serin_control.rollouts.reach import BACK_S, SILENT_S
from serin_control.rollouts.rollout import State
from serin_control.rollouts.shown import NewestRollouts
from serin_control.rollouts.spec import Step
from serin_control.rollouts.standing import DRAIN_S, KEEP_S
from serin_control.rollouts.starting import MOST_SESSIONS_PER_S
from serin_control.rollouts.store import Book, MemoryRollouts
from serin_control.xds.routing import route

ROOMY = [*pair("v1"), instance("w2", version="v2")]


@pytest.fixture
def stage(clock) -> Stage:
    """A control plane that leads a store of its own."""
    return Stage(clock)


async def promoted(stage: Stage, **asked) -> str:
    """A rollout whose judge found it good at every step."""
    await stage.look()
    started = await stage.desk.start(spec(**asked), "", ANN)
    await stage.look()
    await stage.look()
    number = 0
    while (now := await stage.desk.get(started.id)).state is not State.PROMOTED:
        stage.arbiter(started.id).verdict = Verdict.PROMOTE
        stage.observe(10, first=number)
        number += 10
        await stage.look()
        assert number < 100, now
    return started.id


async def acts(stage: Stage, rollout: str = "") -> list[str]:
    """What the history says, oldest first."""
    found, _ = await stage.desk.history(rollout, 1000, "")
    return [act.what for act in reversed(found)]


async def test_versions_that_can_form_no_lane_are_refused_at_the_start(clock):
    """With the reason, and what would move them together."""
    foreign = instance("w2", version="v2", vocabulary=OTHER_VOCABULARY)
    stage = Stage(clock, instances=[*pair("v1"), foreign])
    await stage.look()
    said = (
        "'v2': tokenizer v1, worker v2 hold different vocabularies: they can form no lane; move both: --also tokenizer$"
    )
    with pytest.raises(RolloutInvalid, match=said):
        await stage.desk.start(spec(), "", ANN)


async def test_from_start_to_promotion_traffic_follows(stage):
    """Each weight is written before it is given; the old lane keeps 1 of 10,000; the history tells all of it."""
    await stage.look()
    assert stage.weights() == {"v1": 10_000}
    started = await stage.desk.start(spec(), "", ANN)
    assert (started.id, started.from_version, started.started_by) == ("small-1", "v1", "ann")
    await stage.look()
    assert stage.weights() == {"v1": 9_900, "v2": 100}
    await stage.look()
    stage.arbiter().verdict = Verdict.PROMOTE
    stage.observe(10)
    await stage.look()
    assert stage.weights() == {"v1": 7_500, "v2": 2_500}
    stage.observe(10, first=10)
    await stage.look()
    assert stage.weights() == {"v2": 9_999, "v1": 1}
    ended = await stage.desk.get("small-1")
    assert (ended.state, ended.num_requests, ended.num_sessions) == (State.PROMOTED, 20, 20)
    assert await acts(stage, "small-1") == ["start", "step", "step", "promote"]
    found, _ = await stage.desk.history("small-1", 10, "")
    assert [act.actor for act in found] == ["judge", "judge", "judge", "ann"]
    assert found[-1].reason == "small: worker v1 -> v2, intent same, 1 %, 25 %, 100 %"
    assert (found[-1].identity, found[-1].term) == ("cli", 1)


async def test_a_verdict_of_abort_returns_everything(stage):
    """The canary drains without new sessions, and then has no lane though it runs."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.look()
    stage.arbiter().verdict = Verdict.ABORT
    stage.observe(4)
    await stage.look()
    assert stage.weights() == {"v1": 10_000, "v2": 0}
    assert stage.engine.bench.running() == []
    await stage.look(DRAIN_S)
    assert stage.weights() == {"v1": 10_000}
    assert await acts(stage) == ["start", "step", "abort", "expire"]
    again = await stage.desk.start(spec(), "", ANN)
    await stage.look()
    assert (again.id, stage.weights()) == ("small-2", {"v1": 9_900, "v2": 100})


async def test_a_kept_lane_takes_everything_back(stage):
    """`rollback` within the day, and from there forward again."""
    await promoted(stage)
    back = await stage.desk.rollback("small", "", ANN, "smells")
    assert (back.version, len(back.lane)) == ("v1", 32)
    assert stage.weights() == {"v1": 9_999, "v2": 1}
    forward = await stage.desk.rollback("small", "v2", ANN, "false alarm")
    assert (forward.version, stage.weights()) == ("v2", {"v2": 9_999, "v1": 1})
    assert (await stage.desk.rollback("small", "v2", ANN, "")).version == "v2"
    assert await acts(stage) == ["start", "step", "step", "promote", "rollback", "rollback"]


async def test_going_to_what_was_never_released_is_carried_out_and_said(stage):
    """No judge is asked; who names an unproven version is told so, and the history too."""
    stage.running.append(instance("w3", version="v3"))
    await promoted(stage)
    assert (await stage.desk.rollback("small", "v1", ANN, "")).note == ""
    there = await stage.desk.rollback("small", "v3", ANN, "a guess")
    said = "worker v3 was never judged: no rollout promoted it, and it had no traffic before"
    assert (there.version, there.note) == ("v3", said)
    (act, *_), _ = await stage.desk.history("", 10, "")
    assert act.reason == f"small: tokenizer v1, worker v1 -> tokenizer v1, worker v3: a guess ({said})"
    assert (await stage.desk.rollback("small", "v3", ANN, "")).note == ""
    await stage.look(KEEP_S)
    assert (await stage.desk.rollback("small", "v2", ANN, "promoted once")).note == ""


async def test_what_cannot_be_read_of_the_past_keeps_nobody_from_going_back(clock):
    """A rollout that another version wrote is left out, with an alarm; a past that cannot be read at all is a note."""
    store = Forgetful()
    stage = Stage(clock, store)
    stage.running.append(instance("w3", version="v3"))
    await promoted(stage)
    store.unreadable = ("small-0",)
    assert [one.id for one in (await stage.desk.page("", 9, ""))[0]] == ["small-1"]
    await NewestRollouts(stage.engine).follow()
    assert "stored record all/small-0 cannot be read: left out" in stage.alarms.sentences()
    assert "was never judged" in (await stage.desk.rollback("small", "v3", ANN, "a guess")).note
    await stage.desk.rollback("small", "v2", ANN, "forward again")
    await stage.look(KEEP_S)
    store.is_deaf = True
    there = await stage.desk.rollback("small", "v3", ANN, "a guess")
    assert there.note == "whether worker v3 was ever judged is not known: the rollouts of the past could not be read"
    assert stage.weights() == {"v3": 9_999, "v2": 1}


async def test_going_back_twice_has_no_effect(stage):
    """Whoever repeats a rollback, or does it beside somebody else, does not bring back what was not good enough."""
    await promoted(stage)
    assert (await stage.desk.rollback("small", "", ANN, "smells")).version == "v1"
    with pytest.raises(RolloutInvalid, match=r"went back already.*worker v2.*`serin rollback --model small --to v2`"):
        await stage.desk.rollback("small", "", ANN, "smells")
    assert stage.weights() == {"v1": 9_999, "v2": 1}
    await stage.desk.rollback("small", "v2", ANN, "it was something else")
    assert stage.weights() == {"v2": 9_999, "v1": 1}


async def test_what_moved_and_has_nothing_left_to_go_back_to_is_not_said_to_stand_still(stage):
    """Promoted, gone back from, tried again and aborted: nothing is kept, and a version can still be named."""
    await stage.look()
    with pytest.raises(RolloutInvalid, match="small has not moved: there is nothing to go back to"):
        await stage.desk.rollback("small", "", ANN, "")
    await promoted(stage)
    await stage.desk.rollback("small", "", ANN, "smells")
    again = await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.desk.act(again.id, Action.ABORT, ANN, "")
    said = (
        r"no other version that had the traffic of small is kept: .*`serin rollback --model small --to VERSION` gives"
    )
    with pytest.raises(RolloutInvalid, match=said):
        await stage.desk.rollback("small", "", ANN, "")
    assert (await stage.desk.rollback("small", "v2", ANN, "")).version == "v2"


async def test_what_is_gone_is_not_mistaken_for_a_part_that_has_its_name(clock):
    """The tokenizer is still called v2, the worker v2 runs no more: traffic stays, and that is said."""
    stage = Stage(clock, instances=[*pair("v2"), instance("w1", version="v1")])
    stage.plan = declared(v2=1)
    await promoted(stage, to_version="v1")
    stage.running = [one for one in stage.running if one.registration.instance != "w0-small-v2"]
    with pytest.raises(VersionGone, match="nothing of worker v2 of small takes calls"):
        await stage.desk.rollback("small", "v2", ANN, "")


async def test_an_abort_holds_whatever_was_declared_meanwhile(stage):
    """Shares that name the canary are no reason to give it anything; the next ones that are declared count."""
    stage.plan = declared(v1=100, v2=0)
    stage.running = [*pair("v1"), *pair("v2")]
    await stage.look()
    started = await stage.desk.start(spec(also=(Service.TOKENIZER,)), "", ANN)
    await stage.look()
    stage.plan = declared(v1=50, v2=50)
    await stage.look()
    await stage.desk.act(started.id, Action.ABORT, ANN, "")
    await stage.look(DRAIN_S)
    assert stage.weights() == {"v1": 10_000}
    stage.plan = declared(v1=60, v2=40)
    await stage.look()
    assert stage.weights() == {"v1": 6_000, "v2": 4_000}


async def test_after_a_day_the_old_lane_gets_nothing_but_can_still_be_gone_back_to(stage):
    """Kept lanes expire; what runs can take the traffic all the same."""
    await promoted(stage)
    await stage.look(KEEP_S)
    assert stage.weights() == {"v2": 10_000}
    assert (await stage.desk.rollback("small", "v1", ANN, "")).version == "v1"
    assert stage.weights() == {"v1": 9_999, "v2": 1}


async def test_what_runs_no_more_is_named_with_the_command_that_brings_it_back(clock):
    """Traffic stays where it is."""
    stage = Stage(clock, instances=[*pair("v1"), instance("w2", version="v2"), instance("w3", version="v3")])
    await promoted(stage)
    with pytest.raises(VersionGone, match=r"--version 'v2;drop' --path DIR` .*--to 'v2;drop'`"):  # for a shell
        await stage.desk.rollback("small", "v2;drop", ANN, "")
    await promoted(stage, to_version="v3")
    stage.running = [one for one in stage.running if one.registration.instance not in ("w0-small-v1", "w2")]
    with pytest.raises(VersionGone) as refused:
        await stage.desk.rollback("small", "", ANN, "")
    assert str(refused.value) == (
        "nothing of worker v2 of small takes calls any more: traffic stays where it is; `serin add worker --model "
        "small --version v2 --path DIR` brings it back, then `serin rollback --model small --to v2`"
    )
    assert stage.weights() == {"v3": 10_000}
    stage.running += pair("v2", model="other")
    with pytest.raises(VersionGone, match="nothing of worker v2 of small takes calls"):
        await stage.desk.rollback("small", "", ANN, "")
    with pytest.raises(VersionGone, match="worker v7 of small"):
        await stage.desk.rollback("small", "v7", ANN, "")


async def test_what_comes_back_by_itself_is_waited_for(stage):
    """Nobody is told to add what serin.yaml declares, or what is starting already."""
    await promoted(stage)
    old = next(one for one in stage.running if one.registration.instance == "w0-small-v1")
    stage.running.remove(old)
    until = "wait until `serin status` shows worker v1 ready"
    again = "serin.yaml declares it, so it is started again"
    with pytest.raises(VersionGone, match=rf"; {until}: {again} .*, then `serin rollback --model small --to v1`$"):
        await stage.desk.rollback("small", "", ANN, "")
    loading = Status(ServiceState.STARTING, 0.4, "loading weights")
    stage.running.append(replace(old, status=loading))
    with pytest.raises(VersionGone, match=rf"; {until} \(loading weights 40%\), then `serin rollback"):
        await stage.desk.rollback("small", "", ANN, "")


async def test_rollback_during_a_rollout_takes_it_back(stage):
    """Whoever says rollback wants the old version now."""
    await stage.look()
    with pytest.raises(RolloutInvalid, match="small has not moved"):
        await stage.desk.rollback("small", "", ANN, "")
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    assert (await stage.desk.rollback("small", "", ANN, "panic")).version == "v1"
    ended = await stage.desk.get("small-1")
    assert ended.reason.startswith("Aborted at 1 %: by ann: rolled back: panic.")
    assert stage.weights() == {"v1": 10_000, "v2": 0}


async def test_rollback_means_the_rollout_of_the_model_whatever_it_moves(clock):
    """Without a service too; what moved elsewhere is named with its command, and a named version means the lanes."""
    gateways = [instance(f"g{n}", Service.GATEWAY, f"v{n}") for n in (1, 2)]
    stage = Stage(clock, instances=[*ROOMY, *gateways], has_edge=lambda: True)
    command = "`serin rollback --model small --service gateway`"
    await stage.look()
    await stage.desk.start(spec(service=Service.GATEWAY), "", ANN)
    await stage.look()
    unmoved = await stage.desk.rollback("small", "v1", ANN, "the worker's")
    assert unmoved.note == f"small-1 moves the gateway, which all models share: {command} takes it back"
    back = await stage.desk.rollback("small", "", ANN, "panic")
    assert (back.version, back.service, back.note) == ("v1", Service.GATEWAY, "")
    assert stage.service_shares() == {"v1": 10_000, "v2": 1}
    better = await stage.desk.start(spec(service=Service.GATEWAY, intent=Intent.BETTER), "", ANN)
    assert better.reason.startswith("started; a gateway makes no answers of its own")
    await stage.look()
    await stage.desk.act("small-2", Action.PROMOTE, ANN, "")
    moved = f"the gateway, which all models share, was moved from gateway v1: {command} returns to it"
    with pytest.raises(RolloutInvalid, match=f"small has not moved.*; {moved}"):
        await stage.desk.rollback("small", "", ANN, "panic")
    await promoted(stage)
    assert (await stage.desk.rollback("small", "", ANN, "")).note == moved
    await stage.look(KEEP_S)
    assert (await stage.desk.rollback("small", "v2", ANN, "")).note == ""


async def test_with_nothing_to_go_back_to_it_waits_and_says_who_answers(stage):
    """The old version's only worker dies: an alarm, no verdict counts, nothing untrue is said."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    stage.weights()
    old = next(one for one in stage.running if one.registration.instance == "w0-small-v1")
    stage.running.remove(old)
    stage.arbiter().verdict = Verdict.ABORT
    stage.observe(4)
    await stage.look()
    assert stage.weights() == {"v2": 10_000}
    now = await stage.desk.get("small-1")
    assert (now.state, now.weight, now.reason) == (
        State.WAITING,
        100,
        "waiting: v1 takes no calls: v2 has all of them",
    )
    said = "rollout small-1 of small: v1 takes no calls: v2 has all of them, and nothing can be gone back to"
    assert [one.startswith(said) for one in stage.alarms.sentences()] == [True]
    await stage.desk.act("small-1", Action.PAUSE, ANN, "who knows")
    assert len(stage.alarms.sentences()) == 1
    with pytest.raises(VersionGone, match=r"small-1 was taken back, but nothing of worker v1 of small takes calls"):
        await stage.desk.rollback("small", "", ANN, "panic")
    ended = await stage.desk.get("small-1")
    assert ended.reason.endswith(" v1 takes no calls: v2 has all of them until v1 is back.")
    await stage.look(DRAIN_S)
    assert stage.weights() == {"v2": 10_000}  # not retired while it is all that answers
    stage.running.append(old)
    await stage.look()
    assert stage.weights() == {"v1": 10_000}
    assert stage.alarms.sentences() == ()


async def test_what_comes_back_is_judged_again(stage):
    """A moment without the old version ends the wait only: the verdict counts again."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    stage.arbiter().verdict = Verdict.ABORT
    old = next(one for one in stage.running if one.registration.instance == "w0-small-v1")
    stage.running.remove(old)
    await stage.look()
    stage.running.append(old)
    assert (await stage.desk.get("small-1")).state is State.WAITING
    await stage.look()
    assert (await stage.desk.get("small-1")).reason.endswith("All traffic is on v1.")


async def test_whoever_meets_the_canary_is_counted_when_the_answer_begins(stage):
    """Long streams that run at an abort saw it; samples of a step are what has ended."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.look()
    (trial,) = stage.engine.bench.running()
    for session in range(5):
        stage.engine.bench.begin("small", Beginning(trial.canary_lane, session))
    stage.engine.bench.begin("small", Beginning(trial.stable_lane, 9))
    stage.arbiter().verdict = Verdict.PROMOTE
    stage.observe(7, first=3)
    ended = Observation("r", trial.canary_lane, 0, stage.clock(), was_told_of=True)
    stage.engine.bench.observe("small", ended)
    await stage.look()
    now = await stage.desk.get("small-1")
    assert (now.num_sessions, now.num_requests, now.num_step_requests, now.step) == (10, 12, 8, 0)
    await stage.desk.act("small-1", Action.ABORT, ANN, "no")
    assert (await stage.desk.get("small-1")).reason == (
        "Aborted at 1 %: by ann: no. 10 sessions saw it in 12 requests, 4 of which had not ended. All traffic is on v1."
    )


async def test_a_canary_that_disappears_gives_everything_back_and_waits_for_a_person(stage):
    """An alarm stands; a person resumes, also before it is back. Who answers is said whatever the weight is."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    stage.running = pair("v1")
    await stage.look()
    assert stage.weights() == {"v1": 10_000}
    paused = "rollout small-1 of small: paused: v2 stopped taking calls: its traffic went back to v1; next: "
    resumable = "`serin rollout resume small-1`, which waits until v2 takes calls, or `… abort small-1`"
    assert stage.alarms.sentences() == (paused + resumable,)
    stage.running = ROOMY
    await stage.look()
    assert stage.weights() == {"v1": 10_000, "v2": 0}
    (alarm,) = stage.alarms.sentences()
    assert alarm.startswith(f"{paused}v2 takes calls again: `serin rollout resume small-1`, `… promote small-1` or")
    stage.running = [one for one in ROOMY if one.registration.instance != "w0-small-v1"]
    await stage.look()
    assert stage.weights() == {"v2": 10_000}
    alone = "v1 takes no calls: v2 has all of them"
    follower = Stage(stage.clock, stage.engine.store, "c2", instances=stage.running)
    await follower.look()
    for each in (stage, follower):
        now = await each.desk.get("small-1")
        assert (now.state, now.weight, words.traffic(now)) == (State.PAUSED, 0, alone)
    assert [alone in alarm for alarm in sorted(stage.alarms.sentences())] == [False, True]
    stage.running = pair("v1")
    await stage.look()
    resumed = await stage.desk.act("small-1", Action.RESUME, ANN, "")
    for _ in range(3):
        await stage.look()
        now = await stage.desk.get("small-1")
        assert now.state is resumed.rollout.state is State.WAITING
        assert now.reason == resumed.rollout.reason == "waiting: v2 is not ready: nothing of it runs"
    assert (words.traffic(now), stage.weights(), stage.alarms.sentences()) == ("", {"v1": 10_000}, ())
    stage.running = ROOMY
    await stage.look()
    assert stage.weights() == {"v1": 9_900, "v2": 100}
    assert await acts(stage) == ["start", "step", "pause", "resume", "step"]


async def test_what_a_shared_tokenizer_takes_away_is_nobodys_fault(stage):
    """Its canary goes on with the old version by itself, nobody is asked; what failed meanwhile is left out."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.look()
    had = stage.engine.book.rollouts["small"]
    tokenizer, *workers = stage.running
    stage.running = workers
    died = stage.clock()
    for _ in range(4):
        await stage.look()
    during = stage.engine.book.rollouts["small"]
    assert (during.state, during.weight, during.reason) == (
        State.WAITING,
        had.weight,
        "waiting: v1 takes no calls: nobody answers small",
    )
    stage.running = [tokenizer, *workers]
    await stage.look()
    after = stage.engine.book.rollouts["small"]
    assert (after.state, after.weight) == (State.RUNNING, had.weight)
    acts, _ = await stage.desk.history("small-1", 10, "")
    assert [act.what for act in acts] == ["step", "start"]
    left_out = stage.arbiter().left_out
    assert (left_out[0][0], left_out[-1][1]) == (died, died + 1.0)
    assert all(until == since for (_, until), (since, _) in itertools.pairwise(left_out))


@pytest.mark.parametrize("aborted", [False, True], ids=["paused", "aborted"])
async def test_answers_of_a_canary_find_its_tokenizer_when_that_is_back(stage, aborted):
    """Another vocabulary, its only tokenizer killed: its lane comes back with the tokenizer, and without sessions.

    As long as the rollout has not ended, and for ten minutes after it has; then it is forgotten.
    """
    old, (tokenizer, worker) = pair("v1"), pair("v2", vocabulary=OTHER_VOCABULARY)
    stage.running = [*old, tokenizer, worker]
    await stage.look()
    await stage.desk.start(spec(also=(Service.TOKENIZER,), intent=Intent.BETTER), "", ANN)
    await stage.look()
    assert stage.weights() == {"v1": 9_900, "v2": 100}
    lane = stage.topology().models[0].lanes[1]
    if aborted:
        await stage.desk.act("small-1", Action.ABORT, ANN, "")
    for away_s in (4.0, DRAIN_S - 10.0):
        stage.running = [*old, replace(tokenizer, status=Status()), worker]
        await stage.look()
        assert stage.weights() == {"v1": 10_000}
        stage.running = [*old, tokenizer, worker]
        await stage.look(away_s)
        assert stage.weights() == {"v1": 10_000, "v2": 0}
        target = route(stage.topology()).targets["tokenizer.small"]
        assert (lane.id, "tokenizer.small@v2") in target.pinned
        assert dict(target.by_vocabulary)[OTHER_VOCABULARY] == (("tokenizer.small@v2", 10_000),)
        assert target.split == (("tokenizer.small@v1", 10_000),)
    if not aborted:
        assert (await stage.desk.get("small-1")).state is State.PAUSED
        await stage.look(10 * DRAIN_S)
        assert stage.weights() == {"v1": 10_000, "v2": 0}
        await stage.desk.act("small-1", Action.ABORT, ANN, "")
    await stage.look(DRAIN_S)
    assert stage.weights() == {"v1": 10_000}
    assert lane.id not in stage.memory.carried["small"]


async def test_an_ordered_stop_of_the_mesh_is_no_disappearance(clock):
    """Neither while it stops nor after the next start, until the canary has been back once; then it counts again."""
    store = MemoryRollouts()
    before = Stage(clock, store)
    await before.look()
    await before.desk.start(spec(), "", ANN)
    await before.look()
    await before.desk.suspend()
    before.running = [instance("t", Service.TOKENIZER)]
    await before.look()
    await before.engine.stop()
    after = Stage(clock, store, instances=[])
    await after.look()
    after.running = pair("v1")
    await after.look()
    now = await after.desk.get("small-1")
    assert (now.state, now.reason) == (State.WAITING, "waiting: v2 is not ready: nothing of it runs")
    after.running = ROOMY
    await after.look()
    assert (await after.desk.get("small-1")).state is State.RUNNING
    assert after.weights() == {"v1": 9_900, "v2": 100}
    assert await acts(after) == ["start", "step"]
    after.running = pair("v1")
    await after.look()
    assert await acts(after) == ["start", "step", "pause"]


async def test_a_canary_that_crashes_at_its_start_is_taken_back(stage):
    """Processes that come and go without ever being ready."""
    starting = [replace(one, status=replace(one.status, state="starting")) for one in ROOMY[2:]]
    stage.running = [*pair("v1"), *starting]
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    for number in range(5):
        await stage.look()
        stage.running = [*pair("v1"), replace(starting[0], registered_at=float(number + 1))]
    ended = await stage.desk.get("small-1")
    assert ended.reason.startswith("Aborted at 0 %: v2 crashed 3 times at its start. Nobody saw it.")
    assert await acts(stage) == ["start", "abort"]


async def test_a_freeze_stops_what_goes_on_and_lets_back_what_must(stage):
    """Nothing starts, moves on or is promoted; an abort and a rollback are carried out."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    assert await stage.desk.freeze(True, ANN, "xmas")
    assert not await stage.desk.freeze(True, ANN, "again")
    await stage.look()
    assert (await stage.desk.get("small-1")).reason == "waiting: frozen: xmas (ann)"
    for action in (Action.PROMOTE, Action.RESUME):
        with pytest.raises(RolloutsFrozen, match=r"frozen, none may .*: xmas \(ann\)"):
            await stage.desk.act("small-1", action, ANN, "")
    assert (await stage.desk.act("small-1", Action.ABORT, ANN, "no")).effective
    with pytest.raises(RolloutsFrozen, match="none may start"):
        await stage.desk.start(spec(), "", ANN)
    assert await stage.desk.freeze(False, ANN, "")
    await stage.desk.start(spec(), "", ANN)


async def test_one_rollout_of_a_model_at_a_time(stage):
    """The second is refused and told what runs."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    with pytest.raises(RolloutConflict, match="small-1 of small is running at 0 %: one rollout of a model at a time"):
        await stage.desk.start(spec(), "", ANN)


@pytest.mark.parametrize(
    ("asked", "golden", "said"),
    [
        ({"model": "big"}, "", "model: 'big': no such model: accepted: small"),
        ({"service": Service.GATEWAY}, "", "service: a gateway rollout is split by Envoy: accepted: with `serin up"),
        ({"service": Service.CONTROL}, "", "service: control: accepted: one of tokenizer, worker, cache, gateway"),
        ({"service": Service.CACHE, "baseline": True}, "", "baseline: accepted: with worker and tokenizer only"),
        (
            {"service": Service.CACHE, "has_golden": True, "intent": Intent.BETTER},
            "{}",
            "golden: not accepted for a cache",
        ),
        (
            {"service": Service.GATEWAY, "has_golden": True, "intent": Intent.BETTER},
            "{}",
            "golden: not accepted for a gateway",
        ),
        ({"tolerances": {"speed": 1.0}}, "", "tolerances.speed: no such metric: accepted: errors, first_token"),
        ({"tolerances": {"errors": 0.0}}, "", "tolerances.errors: 0: accepted: a number above 0"),
        ({"error_rate": 0.5}, "", "error_rate: 0.5: accepted: above 0, at most 0.2"),
        ({"has_golden": True}, "{}", "golden: accepted: with intent better only"),
        ({"has_golden": True, "intent": Intent.BETTER}, '\n{"id": 3}', "golden:2: id: 3 is not accepted"),
        ({"steps": ()}, "", "steps: none"),
        ({"steps": (Step(100, 1, 31 * 86_400.0),)}, "", "steps: step 1: 31 days: accepted: above 0 s, at most 30 days"),
        ({"steps": (Step(10_000),)}, "", "steps: 100 %: nothing would be judged"),
        ({"also": (Service.CACHE,)}, "", "also: cache: accepted: tokenizer together with worker"),
    ],
)
async def test_what_cannot_be_meant_is_refused(stage, asked, golden, said):
    """Key, value, what is accepted; nothing is started."""
    await stage.look()
    with pytest.raises(RolloutInvalid) as refused:
        await stage.desk.start(spec(**asked), golden, ANN)
    assert str(refused.value).startswith(said)
    assert await stage.desk.page("", 10, "") == ([], "")


async def test_a_tolerance_that_traffic_cannot_show_is_refused(stage):
    """Unless weak evidence is accepted. Before any traffic, what no traffic shows is; of the rest it is said."""
    await stage.look()
    stage.court.told = Forecast(400, 3_600.0, {"errors": 0.02})
    await stage.look(10)
    said = r"tolerances.errors: 1e-07: accepted: at least 0.02, .* even 1,000 new sessions/s .* or --accept-weak; no "
    with pytest.raises(RolloutInvalid, match=said + r"traffic was observed yet, `serin rollout plan … --rate N/s`"):
        await stage.desk.start(spec(tolerances={"errors": 1e-7}), "", ANN)
    started = await stage.desk.start(spec(tolerances={"errors": 0.02}), "", ANN)
    assert started.reason.startswith("started; no traffic was observed yet, so nobody knows whether it can show")
    await stage.look()
    await stage.look()
    stage.observe(40)
    await stage.desk.act("small-1", Action.ABORT, ANN, "")
    with pytest.raises(RolloutInvalid, match=r"tolerances.errors: 0.01: accepted: at least 0.02, .* or --accept-weak$"):
        await stage.desk.start(spec(tolerances={"errors": 0.01}), "", ANN)
    started = await stage.desk.start(spec(tolerances={"errors": 0.01}, accept_weak=True), "", ANN)
    assert started.reason == "started"


@pytest.mark.parametrize(
    ("asked", "tolerances", "said"),
    [
        (
            "better",
            {"golden": 0.0001},
            "accepted: at least 1, the smallest change that 1 golden question can show, or -",
        ),
        (
            "better",
            {"refusals": 1e-6},
            "accepted: at least 0.00057, the smallest change that even 1,000 new sessions/s",
        ),
        ("better", {"schema_valid": 1e-6}, "accepted: at least 0.00057, "),
        ("same", {"answers": 1e-9}, "accepted: at least 0.00035, "),
        ("same", {"agreement": 1e-6}, "accepted: at least 0.0043, "),
        ("same", {"memory": 0.5}, "accepted: at least 820, the smallest change that even 1,000 new sessions/s can"),
    ],
)
async def test_every_metric_has_a_smallest_change_that_traffic_can_show(stage, asked, tolerances, said):
    """A minute's steps, one golden question; a plan lists it, a start refuses what is finer, until told not to."""
    await stage.look()
    stage.engine.court = JudgeCourt()
    golden = '{"id": "a", "prompt": "2+2=", "expect": {"exact": "4"}}' if asked == "better" else ""
    steps = tuple(Step(weight, 10, 60.0) for weight in (2_500, 5_000, 10_000))
    fine = spec(intent=Intent(asked), steps=steps, tolerances=tolerances, has_golden=bool(golden))
    (metric, tolerance), rate = *tolerances.items(), MOST_SESSIONS_PER_S
    with pytest.raises(RolloutInvalid) as refused:
        await stage.desk.start(fine, golden, ANN)
    assert str(refused.value).startswith(f"tolerances.{metric}: {tolerance:g}: {said}")
    planned = stage.desk.forecast(fine, rate, golden)
    assert all(tolerance < told.detectable[metric] for _, told in planned.steps)
    assert f"`serin rollout start` refuses it: tolerances.{metric}: " in planned.note
    assert (await stage.desk.start(replace(fine, accept_weak=True), golden, ANN)).reason.startswith("started")


async def test_a_tolerance_of_what_never_comes_is_refused(stage):
    """Without a golden set no score of it is seen; without enough traffic no window of memory ends."""
    await stage.look()
    stage.engine.court = JudgeCourt()
    said = "accepted: with --accept-weak only: no change is one that"
    with pytest.raises(RolloutInvalid, match=f"golden: 0.1: {said} is seen without a golden set .--golden FILE.$"):
        await stage.desk.start(spec(intent=Intent.BETTER, tolerances={"golden": 0.1}), "", ANN)
    told = stage.desk.forecast(spec(tolerances={"memory": 2.0**20}), 0.01)
    assert f"memory: 1.04858e+06: {said} 0.01 new sessions/s can show in a step" in told.note


async def test_what_runs_is_stored_before_a_rollout_of_it_begins(stage):
    """Who dies right after the start and comes back knows both versions: the new one is not taken for gone."""
    found = []

    async def save() -> None:
        found.append((await stage.store.read(-1) or Book()).rollouts)

    stage.engine.mesh = replace(stage.engine.mesh, save=save)
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    assert found == [{}]


async def test_a_plan_says_what_each_step_needs(stage):
    """At a rate that is given, or as observed; without either it says so."""
    await stage.look()
    found = stage.desk.forecast(spec(), 2.0)
    assert [(step.weight, told.samples) for step, told in found.steps] == [(100, 400), (2_500, 400)]
    assert (found.sessions_per_s, found.note) == (2.0, "")
    assert "nobody announces worker v9" in stage.desk.forecast(spec(to_version="v9"), 2.0).note
    with pytest.raises(RolloutInvalid, match="rate: no traffic was observed yet"):
        stage.desk.forecast(spec(), 0.0)


async def test_a_plan_and_a_start_agree(stage):
    """What the rate cannot show is refused by both in the same words, and what is said to be accepted is."""
    await stage.look()
    await promoted(stage)
    await stage.desk.rollback("small", "", ANN, "")
    stage.court.told = Forecast(400, 3_600.0, {"errors": 0.00543})
    fine = spec(tolerances={"errors": 0.001})
    rate = stage.desk.forecast(fine, 0.0).sessions_per_s
    with pytest.raises(RolloutInvalid, match=r"tolerances.errors: 0.001: accepted: at least 0.0055, ") as refused:
        await stage.desk.start(fine, "", ANN)
    found = stage.desk.forecast(fine, rate)
    assert found.note == f"at this rate `serin rollout start` refuses it: {refused.value}"
    assert stage.desk.forecast(replace(fine, accept_weak=True), rate).note == ""
    assert stage.desk.forecast(spec(tolerances={"errors": 0.0055}), rate).note == ""
    assert (await stage.desk.start(spec(tolerances={"errors": 0.0055}), "", ANN)).reason == "started"


async def test_who_is_not_there_is_said(stage):
    """No rollout of that name."""
    await stage.look()
    for call in (stage.desk.get("x"), stage.desk.act("x", Action.ABORT, ANN, "")):
        with pytest.raises(RolloutNotFound, match="no rollout 'x'"):
            await call


async def test_the_other_control_plane_follows_and_then_leads(clock):
    """Same traffic on both; acts only where it leads; after its death the other goes on with judge and all."""
    store = MemoryRollouts()
    first, second = Stage(clock, store), Stage(clock, store, "c2")
    await first.look()
    await second.look()
    await first.desk.start(spec(), "", ANN)
    for _ in range(3):
        await first.look()
        await second.look()
    assert first.weights() == second.weights() == {"v1": 9_900, "v2": 100}
    with pytest.raises(NotLeading, match=r"control plane c1 at 127.0.0.1:2 leads: ask it"):
        await second.desk.act("small-1", Action.ABORT, ANN, "")
    assert second.engine.bench.running() == []
    first.observe(6)
    await first.look(3.5)  # kept
    for stage in (first, second):
        assert [one.num_requests for one in (await stage.desk.page("", 9, ""))[0]] == [6]
    store.lapse()
    await second.look(0.5)
    await second.look()
    second.observe(4, first=6)
    second.arbiter().verdict = Verdict.PROMOTE
    await second.look()
    assert second.weights() == {"v1": 7_500, "v2": 2_500}
    await first.look(1.0)
    assert first.weights() == second.weights()
    assert not first.engine.leadership.leads
    found, _ = await second.desk.history("small-1", 10, "")
    assert [(act.what, act.term) for act in reversed(found)] == [("start", 1), ("step", 1), ("step", 2)]


async def test_a_store_that_is_away_stops_what_goes_on(clock):
    """Traffic stays, nothing moves, whatever the judge says; when it is back others may speak first."""
    store = Away()
    stage = Stage(clock, store)
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.look()
    store.away = True
    stage.arbiter().verdict = Verdict.PROMOTE
    stage.observe(10)
    await stage.look(5.0)
    assert stage.weights() == {"v1": 9_900, "v2": 100}
    for name, action in (("small-1", Action.PAUSE), ("small-1", Action.PROMOTE), ("small-7", Action.ABORT)):
        with pytest.raises((StoreDown, NotLeading)):
            await stage.desk.act(name, action, ANN, "")
    store.away = False
    await stage.look()
    assert stage.weights() == {"v1": 9_900, "v2": 100}
    await stage.look(BACK_S)
    assert stage.weights() == {"v1": 7_500, "v2": 2_500}
    assert await acts(stage) == ["start", "step", "step"]


async def outage(clock) -> tuple["Away", Stage, Stage]:
    """A rollout of which 6 sessions saw the canary; two control planes, the first leads; then the store goes away."""
    store = Away()
    first, second = Stage(clock, store), Stage(clock, store, "c2")
    await first.look()
    await first.desk.start(spec(), "", ANN)
    for _ in range(2):
        await first.look()
        await second.look()
    first.observe(6)
    await first.look()
    store.away = True
    return store, first, second


async def hanging(clock) -> tuple["Hanging", Stage, Stage]:
    """A rollout at 1 % and two control planes, the first leads; then the store hangs until its gate is set."""
    store = Hanging()
    first, second = Stage(clock, store), Stage(clock, store, "c2")
    await first.look()
    await first.desk.start(spec(), "", ANN)
    for _ in range(2):
        await first.look()
        await second.look()
    store.gate.clear()
    clock.advance(1.0)  # the lead is renewed with the next look
    return store, first, second


async def written_once(store: "Hanging", looks, first: Stage, second: Stage) -> None:
    """The store answers: both control planes come to one abort in the history, and to all traffic on what was there."""
    store.gate.set()
    await asyncio.gather(*looks)
    for _ in range(3):
        await first.look()
        await second.look()
    assert await acts(first) == ["start", "step", "abort"]
    assert first.weights() == second.weights() == {"v1": 10_000, "v2": 0}


async def back(store: "Away", *stages: Stage) -> None:
    """The store answers again, and everybody looks, in this order."""
    store.away = False
    for _ in range(8):
        for stage in stages:
            await stage.look()


@pytest.mark.parametrize("after_s", [0.0, 10.0], ids=["still-leading", "lead-lapsed"])
@pytest.mark.parametrize("first_back", [True, False], ids=["itself", "another"])
async def test_an_abort_does_not_wait_for_the_store(clock, after_s, first_back):
    """Traffic is off the canary at once; it is written once, by whoever leads then, as it was said; nothing jumps."""
    store, first, second = await outage(clock)
    if after_s:
        await first.look(after_s)
    first.observe(4, first=6)
    move = await first.desk.act("small-1", Action.ABORT, ANN, "no")
    assert (move.effective, first.desk.is_written("small-1")) == (True, False)
    assert first.weights() == {"v1": 10_000, "v2": 0}
    here = "All traffic is on v1 for whoever listens to this control plane; others hear of it when state Redis answers."
    assert move.rollout.reason.endswith(f" 10 requests. {here}")
    assert (await first.desk.get("small-1")).reason == move.rollout.reason
    said_at = clock()
    assert any("state Redis" in sentence for sentence in first.alarms.sentences())
    await first.look(5.0)
    assert first.weights() == {"v1": 10_000, "v2": 0}
    assert (await first.desk.get("small-1")).state is State.ABORTED
    assert not (await first.desk.act("small-1", Action.ABORT, ANN, "no")).effective
    if not first_back:  # the other one leads as soon as there is a lead to be had
        store.away = False
        store.lapse()
        await second.look()
        await second.look()
        assert second.engine.leadership.leads
    await back(store, first, second)
    assert first.weights() == second.weights() == {"v1": 10_000, "v2": 0}
    assert first.desk.is_written("small-1")
    assert not first.alarms.sentences()
    assert await acts(second) == ["start", "step", "abort"]
    found, _ = await second.desk.history("small-1", 1, "")
    assert (found[0].actor, found[0].identity, found[0].reason, found[0].at) == ("ann", "cli", "no", said_at)
    ended = await second.desk.get("small-1")
    assert ended.reason == ("Aborted at 1 %: by ann: no. 10 sessions saw it in 10 requests. All traffic is on v1.")


async def test_the_judge_does_not_wait_for_the_store_either(clock):
    """What it hears while the store is away counts; whoever never judged takes nothing back."""
    store, first, second = await outage(clock)
    await first.look(5.0)
    first.observe(4, first=6)
    first.arbiter().verdict = Verdict.ABORT
    await first.look()
    await second.look()
    assert first.weights() == {"v1": 10_000, "v2": 0}
    assert second.weights() == {"v1": 9_900, "v2": 100}
    await back(store, second, first)
    assert first.weights() == second.weights() == {"v1": 10_000, "v2": 0}
    assert await acts(first) == ["start", "step", "abort"]
    assert (await first.desk.history("small-1", 1, ""))[0][0].actor == "judge"
    assert (await first.desk.get("small-1")).num_requests == 10


async def test_an_abort_said_to_every_control_plane_is_written_once(clock):
    """As the command does: each takes the traffic off for whoever listens to it."""
    store, first, second = await outage(clock)
    for stage in (first, second):
        await stage.look(5.0)
        assert (await stage.desk.act("small-1", Action.ABORT, ANN, "no")).effective
        assert stage.weights() == {"v1": 10_000, "v2": 0}
    assert "Whether anybody saw it is not known." in (await second.desk.get("small-1")).reason
    await back(store, second, first)
    assert await acts(first) == ["start", "step", "abort"]
    assert first.weights() == second.weights() == {"v1": 10_000, "v2": 0}
    assert "6 sessions saw it in 6 requests." in (await first.desk.get("small-1")).reason


async def test_who_never_judged_tells_what_was_kept_of_it(clock):
    """Who leads after the outage has not heard what its leader had: it says that there may be more."""
    store, first, second = await outage(clock)
    store.away = False
    await first.look(3.5)  # kept
    store.away = True
    first.observe(4, first=6)
    await second.look()
    assert (await second.desk.act("small-1", Action.ABORT, ANN, "no")).effective
    store.away = False
    store.lapse()
    await back(store, second)
    assert " At least 6 sessions saw it in 6 requests. " in (await second.desk.get("small-1")).reason


async def test_an_abort_does_not_wait_for_a_store_that_hangs(clock, monkeypatch):
    """The traffic is away while the look, and with it the lock, still waits; and it is written once all the same."""
    monkeypatch.setattr(engine, "WRITE_WITHIN_S", 0.05)
    store, first, second = await hanging(clock)
    looks = [asyncio.create_task(stage.engine.look()) for stage in (first, second)]
    await asyncio.sleep(0)
    aborting = asyncio.create_task(first.desk.act("small-1", Action.ABORT, ANN, "no"))
    await asyncio.sleep(0)
    assert first.weights() == {"v1": 10_000, "v2": 0}
    assert [task.done() for task in (aborting, *looks)] == [False, False, False]
    assert not first.alarms.sentences()
    with pytest.raises(NotLeading, match="control plane c1"):  # as far as that one can know
        await second.desk.act("small-1", Action.ABORT, ANN, "no")
    assert ((await aborting).effective, first.desk.is_written("small-1")) == (True, False)
    assert any("state Redis" in sentence for sentence in first.alarms.sentences())
    clock.advance(SILENT_S)
    assert (await second.desk.act("small-1", Action.ABORT, ANN, "no")).effective
    assert second.weights() == {"v1": 10_000, "v2": 0}
    assert [look.done() for look in looks] == [False, False]
    await written_once(store, looks, first, second)
    assert first.alarms.sentences() == second.alarms.sentences() == ()


async def test_nobody_overtakes_what_was_taken_back_while_the_store_hung(clock):
    """Who leads was answered in the end, and yet holds: another one may have taken back for the silence."""
    store, first, second = await hanging(clock)
    first.arbiter().verdict = Verdict.PROMOTE
    first.observe(10)
    looks = [asyncio.create_task(stage.engine.look()) for stage in (first, second)]
    await asyncio.sleep(0)
    clock.advance(SILENT_S)
    await second.desk.act("small-1", Action.ABORT, ANN, "no")
    store.gate.set()
    await looks[0]
    assert first.weights() == {"v1": 9_900, "v2": 100}
    await looks[1]
    await first.look()
    assert first.weights() == second.weights() == {"v1": 10_000, "v2": 0}
    assert await acts(first) == ["start", "step", "abort"]


async def test_an_abort_that_comes_too_late_says_so(clock):
    """The promotion was on its way to the store: that counts, and the answer tells it."""
    store, first, _ = await hanging(clock)
    store.gate.set()
    await first.look()
    store.gate.clear()
    promoting = asyncio.create_task(first.desk.act("small-1", Action.PROMOTE, ANN, "yes"))
    await asyncio.sleep(0)
    aborting = asyncio.create_task(first.desk.act("small-1", Action.ABORT, ANN, "no"))
    await asyncio.sleep(0)
    store.gate.set()
    assert (await promoting).effective
    late = await aborting
    assert (late.effective, late.rollout.state) == (False, State.PROMOTED)
    assert late.reason.startswith("it has ended: Promoted: by ann: yes.")
    assert first.weights() == {"v2": 9_999, "v1": 1}
    assert await acts(first) == ["start", "step", "promote"]


async def test_a_rollback_of_a_rollout_does_not_wait_for_the_store_either(clock):
    """The canary has nothing any more; who said it is told that it is not written."""
    store, first, _ = await outage(clock)
    returned = await first.desk.rollback("small", "", ANN, "panic")
    assert (returned.version, first.weights()) == ("v1", {"v1": 10_000, "v2": 0})
    assert "`serin rollout abort small-1` says it to every control plane" in returned.note
    await back(store, first)
    assert await acts(first) == ["start", "step", "abort"]


@pytest.mark.parametrize("to_version", ["", "v1"])
async def test_a_rollback_of_a_rollout_needs_no_lead(clock, monkeypatch, to_version):
    """A store that hangs for longer than the lead lasts: whoever is asked takes it back, and twice is as once."""
    monkeypatch.setattr(engine, "WRITE_WITHIN_S", 0.05)
    store, first, second = await hanging(clock)
    looks = [asyncio.create_task(stage.engine.look()) for stage in (first, second)]
    await asyncio.sleep(0)
    with pytest.raises(NotLeading, match="control plane c1"):  # as far as that one can know
        await second.desk.rollback("small", to_version, ANN, "panic")
    clock.advance(TTL_S)
    assert not first.engine.leadership.leads
    for stage in (first, second, first):
        returned = await stage.desk.rollback("small", to_version, ANN, "panic")
        assert (returned.version, stage.weights()) == ("v1", {"v1": 10_000, "v2": 0})
        assert "`serin rollout abort small-1` says it to every control plane" in returned.note
    await written_once(store, looks, first, second)


async def test_a_rollback_to_another_version_without_the_store_takes_the_rollout_back(clock):
    """What cannot be decided without the store is refused, and the refusal says what was done."""
    store, first, _ = await outage(clock)
    await first.look(5.0)
    with pytest.raises(StoreDown, match="small-1 was taken back: its traffic is on v1; it goes to v2 once"):
        await first.desk.rollback("small", "v2", ANN, "panic")
    assert first.weights() == {"v1": 10_000, "v2": 0}
    await back(store, first)
    with pytest.raises(RolloutInvalid, match="nothing to go back to"):
        await first.desk.rollback("small", "", ANN, "")


async def test_what_runs_is_shown_without_the_store(clock):
    """By whoever led and whoever followed, with a word that the store is silent; what is not known here is refused."""
    store, first, second = await outage(clock)
    silent = "; state Redis does not answer: this is what this control plane knows"
    for stage in (first, second):
        assert silent in (await stage.desk.page("", 9, ""))[0][0].reason  # it has not noticed before it is asked
        await stage.look(5.0)
        now = await stage.desk.get("small-1")
        assert (now.state, now.weight, now.reason.count(silent)) == (State.RUNNING, 100, 1)
        assert (await stage.desk.page("", 9, "")) == (await stage.desk.page("small", 9, "")) == ([now], "")
        watch = stage.desk.watch("small-1")
        assert await anext(watch) == now
        await watch.aclose()
        for asked in (stage.desk.get("small-7"), stage.desk.page("other", 9, ""), stage.desk.page("", 9, "small-1")):
            with pytest.raises(StoreDown):
                await asked
    await first.desk.act("small-1", Action.ABORT, ANN, "no")
    assert [one.state for one in (await first.desk.page("", 9, ""))[0]] == [State.ABORTED]
    await back(store, first, second)
    assert silent not in (await second.desk.get("small-1")).reason


async def test_who_dies_before_the_store_is_back_takes_nothing_along(clock):
    """The rollout goes on where it was: what was not written is not known, and the command said so."""
    store, first, second = await outage(clock)
    await first.desk.act("small-1", Action.ABORT, ANN, "no")
    store.away = False
    store.lapse()
    await back(store, second)
    assert second.weights() == {"v1": 9_900, "v2": 100}
    assert (await second.desk.act("small-1", Action.ABORT, ANN, "again")).effective


async def test_a_rollout_that_ended_without_it_stays_as_it_ended(clock):
    """A control plane that alone is cut off takes back for its own; where people promoted meanwhile, that counts."""
    store, first, second = await outage(clock)
    await first.desk.act("small-1", Action.ABORT, ANN, "no")
    store.away = False
    store.lapse()
    for _ in range(2):
        await second.look(1.0)
    await second.desk.act("small-1", Action.PROMOTE, ANN, "yes")
    await back(store, first, second)
    assert first.weights() == second.weights() == {"v2": 9_999, "v1": 1}
    assert await acts(first) == ["start", "step", "promote"]


async def test_shares_that_are_declared_anew_end_a_promotion(stage):
    """A further version of weight 0 does not; the history says so."""
    stage.plan = declared(v1=100, v2=0)
    stage.running = [*pair("v1"), *pair("v2")]
    await promoted(stage, also=(Service.TOKENIZER,))
    stage.plan = declared(v1=100, v2=0, v3=0)
    await stage.look()
    assert stage.weights() == {"v2": 9_999, "v1": 1}
    stage.plan = declared(v1=60, v2=40)
    await stage.look()
    assert stage.weights() == {"v1": 6_000, "v2": 4_000}
    assert (await acts(stage))[-1] == "declare"


async def test_a_gateway_is_split_by_version_and_judged_by_who_served(clock):
    """Its calls follow the steps; what each gateway served is its arm; nothing of it reaches the model's lanes."""
    gateways = [instance(f"g{n}", Service.GATEWAY, f"v{n}") for n in (1, 2)]
    stage = Stage(clock, instances=[*pair("v1"), *gateways], has_edge=lambda: True)
    steps = tuple(Step(weight, 10, 100.0) for weight in (100, 5_000, 10_000))
    await stage.look()
    await stage.desk.start(spec(service=Service.GATEWAY, steps=steps), "", ANN)
    await stage.look()
    assert stage.service_shares() == {"v1": 9_900, "v2": 100}
    assert (stage.weights(), stage.engine.bench.running()) == ({"v1": 10_000}, [])
    for number in range(20):
        seen = Observation(f"r{number}", "any lane", number, 1.0)
        stage.engine.bench.observe("small", seen, "g2" if number % 2 else "g1")
    await stage.look()
    assert (await stage.desk.get("small-1")).num_requests == 10
    stage.arbiter().verdict, stage.arbiter().quality_judged = Verdict.WAIT, False
    stage.arbiter().good = ("errors",)
    await stage.look()
    assert stage.service_shares() == {"v1": 5_000, "v2": 5_000}
    await stage.desk.act("small-1", Action.ABORT, ANN, "")
    assert stage.service_shares() == {"v1": 10_000, "v2": 1}
    await stage.desk.start(spec(service=Service.GATEWAY, steps=steps), "", ANN)
    await stage.look()
    assert (await stage.desk.act("small-2", Action.PROMOTE, ANN, "")).effective
    assert stage.service_shares() == {"v1": 1, "v2": 10_000}
    back = await stage.desk.rollback("small", "", ANN, "", Service.GATEWAY)
    assert (back.version, stage.service_shares()) == ("v1", {"v1": 10_000, "v2": 1})
    assert back.service is Service.GATEWAY
    assert (await stage.desk.history("", 1, ""))[0][0].reason == f"all models: gateway v2 -> gateway v1: {NO_REASON}"
    stage.running = [one for one in stage.running if one.registration.version == "v1"]
    with pytest.raises(VersionGone, match="`serin add gateway --version v2 --code DIR` brings it back"):
        await stage.desk.rollback("small", "v2", ANN, "", Service.GATEWAY)


async def test_a_gateway_that_falls_silent_gives_everything_back(clock):
    """Half a second, although its lease goes on; who was cut off for a moment keeps its share."""
    stable, canary = (instance(f"g{n}", Service.GATEWAY, f"v{n}") for n in (1, 2))
    stage = Stage(clock, instances=[*pair("v1"), stable, canary], has_edge=lambda: True)
    await stage.look()
    await stage.desk.start(spec(service=Service.GATEWAY), "", ANN)
    await stage.look()
    for suspect in (True, False, True):
        stage.running[-1] = replace(canary, suspect=suspect)
        await stage.look()
        assert stage.service_shares() == {"v1": 9_900, "v2": 100}
    await stage.look()
    assert stage.service_shares() == {"v1": 10_000}
    assert (await stage.desk.get("small-1")).reason.startswith("paused: v2 fell silent")


async def test_who_never_heard_a_rollout_changes_nothing_about_it(clock):
    """A control plane that no service names takes the lead: it knows its mesh from the store, as lost, and says so.

    Once it hears somebody, who is missing a lease later is missed.
    """
    store = MemoryRollouts()
    first = Stage(clock, store)
    await first.look()
    await first.desk.start(spec(), "", ANN)
    await first.look()
    before = await first.desk.get("small-1")
    stored = [replace(one, suspect=True, lost=True) for one in first.running]
    deaf = Stage(clock, store, "c2", instances=stored)
    store.lapse()
    for _ in range(40):
        await deaf.look()
    assert deaf.engine.leadership.leads
    assert (await deaf.desk.get("small-1"), await acts(deaf)) == (before, ["start", "step"])
    (alarm,) = deaf.alarms.sentences()
    assert alarm.startswith("rollout small-1 of small: stands still: this control plane leads and has heard nobody of")
    deaf.running[:2] = first.running[:2]
    await deaf.look(HEARD_S / 2)
    await deaf.look(HEARD_S / 2)
    assert ((await deaf.desk.get("small-1")).state, deaf.alarms.sentences()) == (State.RUNNING, ())
    await deaf.look(HEARD_S)
    assert (await deaf.desk.get("small-1")).reason == "paused: v2 stopped taking calls: its traffic went back to v1"


async def test_a_judge_that_cannot_be_read_is_told_of(clock):
    """Who leads next judges anew, counts on, and says so: in the history and as an alarm."""
    store = MemoryRollouts()
    first = Stage(clock, store)
    await first.look()
    await first.desk.start(spec(), "", ANN)
    await first.look()
    await first.look()
    first.observe(6)
    await first.look(3.5)  # kept
    store.lapse()
    second = Stage(clock, store, "c2", court=JudgeCourt())  # which knows nothing of a scripted judge's shape
    await second.look()
    assert await acts(second, "small-1") == ["start", "step", "rejudge"]
    said = "compared anew: what was kept of its judge cannot be read here (KeyError: 'exposed')"
    assert second.alarms.sentences() == (f"rollout small-1 of small: {said}; who saw it is counted on",)
    await second.look()
    now = await second.desk.get("small-1")
    assert (now.num_requests, now.reason) == (6, f"10 canary requests missing of 10; {said}")
    assert await acts(second, "small-1") == ["start", "step", "rejudge"]


async def test_what_could_not_be_kept_is_kept_with_the_next_look(clock):
    """The store was away for a moment and nobody asks anything since: who leads next knows it all the same."""
    store, first, second = await outage(clock)
    with pytest.raises(StoreDown):
        await first.engine._keep_progress()
    store.away = False
    for _ in range(2):
        await first.look(BACK_S)
    store.lapse()
    await second.look(0.5)
    assert (await second.desk.get("small-1")).num_requests == 6
    assert second.engine.bench.decision(second.engine.book.rollouts["small"]).num_exposed_requests == 6


async def test_a_judge_that_fails_takes_nobody_along(stage):
    """An alarm says so; the rollout stays where it is, and people can end it."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    await stage.look()
    stage.arbiter().observe = None
    stage.observe(1)
    await stage.look()
    (alarm,) = stage.alarms.sentences()
    assert alarm.startswith("rollout small-1 of small: its judge failed, nothing is judged")
    assert (await stage.desk.get("small-1")).weight == 100
    assert (await stage.desk.act("small-1", Action.ABORT, ANN, "")).effective


async def test_a_restart_moves_nothing_before_everybody_could_announce(clock):
    """Traffic is as it was at once; an empty registry is no canary that disappeared."""
    store = MemoryRollouts()
    before = Stage(clock, store)
    await before.look()
    await before.desk.start(spec(), "", ANN)
    await before.look()
    after = Stage(clock, store, "c1", instances=[])
    after.settled = False
    await after.look(2.0)
    assert (await after.desk.get("small-1")).state is State.RUNNING
    after.running += ROOMY
    after.settled = True
    await after.look(3.0)
    assert after.weights() == {"v1": 9_900, "v2": 100}
    assert (await after.desk.get("small-1")).state is State.RUNNING
    assert await acts(after) == ["start", "step"]


async def test_watching_ends_with_the_rollout(stage):
    """Every change is seen, the end too."""
    await stage.look()
    await stage.desk.start(spec(), "", ANN)
    watch = stage.desk.watch("small-1")
    assert (await anext(watch)).weight == 0
    await stage.look()
    assert (await anext(watch)).weight == 100
    await stage.desk.act("small-1", Action.ABORT, ANN, "")
    await stage.look()
    assert [one.state async for one in watch] == [State.ABORTED]


class Hanging(MemoryRollouts):
    """A store whose answers wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if name.startswith("_") or name in ("gate", "lapse"):
            return found

        async def answered(*arguments):
            await self.gate.wait()
            return await found(*arguments)

        return answered


class Forgetful(MemoryRollouts):
    """A store whose past another version has written too, or that can tell nothing of it."""

    unreadable: tuple[str, ...] = ()
    is_deaf = False

    async def rollouts(self, model, size, after):
        """Those that can be read."""
        if self.is_deaf:
            raise StoreDown("away")
        return (await super().rollouts(model, size, after))._replace(unreadable=self.unreadable)


class Away(MemoryRollouts):
    """A store that can be down."""

    away = False

    def __getattribute__(self, name):
        if not name.startswith("_") and name != "away" and object.__getattribute__(self, "away"):

            async def down(*_):
                raise StoreDown("away")

            return down
        return object.__getattribute__(self, name)
