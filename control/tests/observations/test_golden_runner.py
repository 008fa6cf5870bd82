"""Golden questions are asked on both lanes, each once, and what comes of it is told."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from control_intake import IntakeLog
from serin_control.alarms import Alarms
from serin_control.judge.observation import GoldenResult
from serin_control.observations.asking import LaneAway, LaneFailed, ScriptedLanes
from serin_control.observations.golden_runner import MAX_AT_ONCE, TRIES_BEFORE_ALARM, GoldenRunner
from serin_control.observations.scorers import DeclaredScorer
from serin_control.observations.unscored import MAX_CAUSES, TOLD_AGAIN_S, NotScored, Unscored
from serin_control.rollouts.intake import RunningTrial


def golden(*expected: str) -> str:
    """A golden set whose right answers are these."""
    lines = [{"id": f"q{n}", "prompt": "?", "expect": {"exact": text}} for n, text in enumerate(expected)]
    return "\n".join(map(json.dumps, lines))


def trial(golden_jsonl: str, rollout_id: str = "r1") -> RunningTrial:
    """A comparison with a golden set."""
    return RunningTrial(rollout_id, "small", "stable", "canary", golden_jsonl)


class ListedTrials:
    """Comparisons as a test lists them."""

    def __init__(self, *trials: RunningTrial) -> None:
        self.trials = list(trials)

    def running(self):
        """All of them."""
        return self.trials


@asynccontextmanager
async def runner(rule, *trials: RunningTrial):
    """A runner that follows its trials by hand."""
    log, lanes, listed = IntakeLog(), ScriptedLanes(rule), ListedTrials(*trials)
    alarms = Alarms()
    made = GoldenRunner(listed, lanes, DeclaredScorer(), log, alarms, pause_s=0.0)
    made.alarms = alarms
    made.follow()
    try:
        yield made, lanes, log, listed
    finally:
        listed.trials.clear()
        made.follow()
        await asyncio.sleep(0)
        assert alarms.sentences() == ()


async def test_each_question_is_asked_once_on_each_lane():
    """And scored on both; asking for the trials again starts nothing again."""
    async with runner(lambda lane, case: "4" if lane == "stable" else "5", trial(golden("4", "5", "6"))) as made:
        runner_, lanes, log, _ = made
        runner_.follow()
        await runner_.until_done("r1")
        runner_.follow()
        assert sorted(lanes.asked) == sorted((lane, f"q{n}") for n in range(3) for lane in ("stable", "canary"))
        assert sorted(log.heard, key=repr) == [
            ("small", GoldenResult("q0", 1.0, 0.0)),
            ("small", GoldenResult("q1", 0.0, 1.0)),
            ("small", GoldenResult("q2", 0.0, 0.0)),
        ]
        progress = runner_.progress["r1"]
        assert (progress.num_cases, progress.num_asked, progress.unscored.num_questions) == (3, 3, 0)


async def test_questions_are_asked_again_of_lanes_that_are_compared_anew():
    """The old version has other files: what was answered before says nothing of them."""
    first = trial(golden("4"))
    async with runner(lambda lane, case: "4", first) as (made, lanes, _, listed):
        await made.until_done("r1")
        listed.trials[:] = [replace(first, stable_lane="mended")]
        made.follow()
        await made.until_done("r1")
        assert sorted(lanes.asked) == [("canary", "q0"), ("canary", "q0"), ("mended", "q0"), ("stable", "q0")]


async def test_a_lane_that_fails_is_wrong_and_one_that_is_away_is_asked_again():
    """A crash is an answer; a worker that is not ready yet is none."""
    times = []

    def rule(lane, case):
        if lane == "canary" and case.id == "q0":
            raise LaneFailed("NUMERICS_FAILED")
        if case.id == "q1" and len(times) < 3:
            times.append(lane)
            raise LaneAway("not ready")
        return "4"

    async with runner(rule, trial(golden("4", "4"))) as (made, _, log, _):
        await made.until_done("r1")
        assert sorted(log.heard, key=repr) == [
            ("small", GoldenResult("q0", 1.0, 0.0)),
            ("small", GoldenResult("q1", 1.0, 1.0)),
        ]
        assert len(times) == 3


async def test_an_answer_that_cannot_be_scored_counts_for_nobody():
    """It is told why, and the other questions go on."""
    hook = json.dumps({"id": "hook", "prompt": "?", "expect": {"webhook": "http://127.0.0.1:1/"}})
    async with runner(lambda lane, case: "4", trial(hook + "\n" + golden("4"))) as (made, _, log, _):
        await made.until_done("r1")
        assert log.heard == [("small", GoldenResult("q0", 1.0, 1.0))]
        progress = made.progress["r1"]
        assert (progress.num_asked, progress.unscored.num_questions) == (2, 1)
        made.follow()
        (said,) = made.alarms.sentences()
        assert said.startswith(
            "rollout r1: 1 of 2 golden questions could not be scored, the last one hook: http://127.0.0.1:1/: "
        )


async def test_a_webhook_that_is_away_is_told_once_whatever_its_paths():
    """Each question has an address of its own, and all are of one host."""
    addresses = [f"http://127.0.0.1:1/score/{number}" for number in range(3)]
    hooks = [{"id": f"q{n}", "prompt": "?", "expect": {"webhook": address}} for n, address in enumerate(addresses)]
    async with runner(lambda lane, case: "4", trial("\n".join(map(json.dumps, hooks)))) as (made, *_):
        await made.until_done("r1")
        made.follow()
        (said,) = made.alarms.sentences()
        assert said.startswith("rollout r1: 3 of 3 golden questions could not be scored, the last one q")


def test_what_cannot_be_scored_is_told_once_for_each_cause(clock):
    """A question that fails as others did is no news for the log, until a while has passed or all are asked."""
    told = []
    unscored = Unscored(clock)
    alarms = Alarms(lambda key, sentence, raised: told.append(sentence.partition(" golden")[0]) if raised else None)

    def fail(*whys: str, is_over: bool = False) -> list[str]:
        told.clear()
        for why in whys:
            unscored.note("q", NotScored(why))
            said = enumerate(unscored.tell(9, is_over=is_over))
            alarms.replace("golden/", {str(number): sentence for number, sentence in said})
        return told

    assert fail("refused", "refused", "refused") == ["1 of 9"]
    assert fail("too slow", "refused", "too slow") == ["1 of 9"]
    clock.advance(TOLD_AGAIN_S)
    assert fail("refused", "refused") == ["5 of 9", "2 of 9"]
    assert fail("refused", is_over=True) == ["7 of 9"]
    assert fail(*map(str, range(9))) == ["1 of 9"] * (MAX_CAUSES - 2)
    assert unscored.num_questions == 18


async def test_a_comparison_that_is_over_is_left():
    """Nothing more is asked for it; one without a golden set is never asked for."""
    asked = asyncio.Event()

    def rule(lane, case):
        asked.set()
        raise LaneAway("away for good")

    plain = RunningTrial("r2", "small", "stable", "canary")
    async with runner(rule, trial(golden(*"4" * 50)), plain) as (made, lanes, log, listed):
        await asked.wait()
        listed.trials.clear()
        made.follow()
        for _ in range(5):
            await asyncio.sleep(0)
        count = len(lanes.asked)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(lanes.asked) == count
        assert {case for _, case in lanes.asked} <= {f"q{n}" for n in range(MAX_AT_ONCE)}
        assert (log.heard, dict(made.progress)) == ([], {})


async def test_a_lane_that_stays_away_is_told():
    """Not at once; and no more when it answers."""
    there = asyncio.Event()

    def rule(lane, case):
        if lane == "canary" and not there.is_set():
            raise LaneAway("no worker of it takes calls")
        return "4"

    async with runner(rule, trial(golden("4"))) as (made, lanes, _, _):
        made.follow()
        assert made.alarms.sentences() == ()
        while len(lanes.asked) < 2 * TRIES_BEFORE_ALARM:  # noqa: ASYNC110 - the lanes tell nobody
            await asyncio.sleep(0)
        made.follow()
        assert made.alarms.sentences() == (
            "rollout r1: golden questions wait for lane canary: no worker of it takes calls",
        )
        there.set()
        await made.until_done("r1")
        made.follow()
        assert made.alarms.sentences() == ()


async def test_a_defect_is_told():
    """The comparison goes on without golden questions, and an alarm says so."""

    def rule(lane, case):
        raise RuntimeError("never foreseen")

    async with runner(rule, trial(golden("4"))) as (made, _, log, _):
        with pytest.raises(ExceptionGroup):
            await made.until_done("r1")
        made.follow()
        (said,) = made.alarms.sentences()
        assert said.endswith("the asking broke off: ExceptionGroup")
        assert log.heard == []


async def test_it_follows_by_itself_and_ends_in_order():
    """As a task of the control plane."""
    log = IntakeLog()
    lanes = ScriptedLanes(lambda lane, case: "4")
    made = GoldenRunner(ListedTrials(trial(golden("4"))), lanes, DeclaredScorer(), log)
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(60):
        while not log.heard:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert log.heard == [("small", GoldenResult("q0", 1.0, 1.0))]
