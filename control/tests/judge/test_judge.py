"""The judge: bad versions are taken back, equal ones promoted, and a restart changes nothing."""

import json
from dataclasses import replace

import pytest
from control_judged import BEGAN, SETTINGS, Lane, decisions, judged, of, opinion, questions, sessions
from serin_control.judge.judge import Judge
from serin_control.judge.observation import Beginning, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.verdict import Verdict

BETTER = replace(SETTINGS, intent="better")
BAD = {
    "errors, rare before": (Lane(error_share=0.001), Lane(error_share=0.1), "errors"),
    "errors, common before": (Lane(error_share=0.02), Lane(error_share=0.15), "errors"),
    "slow tokens": (Lane(), Lane(seconds_per_token=0.03), "per_token"),
    "slow first token": (Lane(), Lane(first_token_s=0.2), "first_token"),
    "longer answers": (Lane(), Lane(num_tokens=150.0), "answer_length"),
    "shorter answers": (Lane(), Lane(num_tokens=15.0), "answer_length"),
    "answers cut off": (Lane(), Lane(cut_off_share=0.5), "finish_reasons"),
    "damaged weights": (Lane(), Lane(score_shift=0.1), "answers"),
    "broken schemas": (Lane(schema_valid_share=0.99), Lane(schema_valid_share=0.7), "schema_valid"),
    "refusals": (Lane(refusal_share=0.01), Lane(refusal_share=0.4), "refusals"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_version_is_taken_back(case):
    """Each kind of damage is found by its own metric, with the figures in the reason."""
    stable, canary, metric = BAD[case]
    decision = judged(SETTINGS, 1, stable, canary, num_sessions=600)
    assert decision.verdict is Verdict.ABORT
    assert of(decision, metric).verdict is Verdict.ABORT
    assert "sessions)" in decision.reason


def test_an_equal_version_is_promoted():
    """Nothing is worse than tolerated, and the answers were looked at."""
    settings = replace(SETTINGS, tolerances={"errors": 0.02})
    decision = judged(settings, 2, Lane(), Lane(), num_sessions=2000)
    assert decision.verdict is Verdict.PROMOTE
    assert decision.quality_judged
    assert decision.reason.startswith("nothing is worse than tolerated: errors 0.")


@pytest.mark.long
def test_equal_versions_are_seldom_taken_back():
    """One in a hundred is what is allowed; none of forty should be."""
    ended = [judged(SETTINGS, 100 + seed, Lane(0.01), Lane(0.01), num_sessions=400) for seed in range(40)]
    assert [decision.reason for decision in ended if decision.verdict is Verdict.ABORT] == []


def test_nothing_promotes_while_nobody_looks_at_the_answers():
    """Fast and without errors is not enough."""
    settings = replace(SETTINGS, tolerances={"errors": 0.02})
    decision = judged(settings, 3, Lane(), Lane(scores_share=0.0), num_sessions=1000)
    assert (decision.verdict, decision.quality_judged) == (Verdict.WAIT, False)
    assert decision.reason.startswith("quality: not judged")


def test_a_crash_needs_few_requests():
    """When everything fails, some ten sessions are enough."""
    decision = judged(SETTINGS, 4, Lane(), Lane(error_share=1.0), num_sessions=100)
    assert decision.verdict is Verdict.ABORT
    assert of(decision, "errors").num_samples <= 20
    assert "INTERNAL" in of(decision, "errors").note


def test_the_golden_set_decides_where_answers_may_change():
    """A version that knows less is taken back; one that knows more is promoted, however different its answers are."""
    worse = Judge(BETTER)
    for result in questions(300, stable_share=0.98, canary_share=0.69):
        worse.golden(result)
    assert of(worse.decision(), "golden").verdict is Verdict.ABORT
    assert worse.decision().verdict is Verdict.ABORT
    settings = replace(BETTER, tolerances={"errors": 0.02})
    better = Judge(settings)
    for result in questions(300, stable_share=0.69, canary_share=0.98):
        better.golden(result)
    verdicts = decisions(better, 5, Lane(), Lane(score_shift=0.5))
    decision = next(d for d in verdicts if d.verdict is not Verdict.WAIT or d.num_exposed_sessions > 2000)
    assert decision.verdict is Verdict.PROMOTE
    assert of(decision, "answers").note.startswith("shown, not judged")


def test_a_question_counts_once():
    """Asked again, it proves nothing."""
    judge = Judge(BETTER)
    for _ in range(50):
        for result in questions(3, stable_share=1.0, canary_share=0.0):
            judge.golden(result)
    assert of(judge.decision(), "golden").num_samples == 3
    assert judge.decision().verdict is Verdict.WAIT


def test_feedback_is_judged_where_it_is_all_there_is():
    """Callers who are less pleased take a version back; one caller has one voice."""
    judge = Judge(BETTER)
    for number in range(400):
        judge.observe(Observation(f"r{number}", "stable", number, BEGAN + 100 + number))
        judge.feedback(opinion(number, "stable", 0.9))
        judge.feedback(opinion(number + 10_000, "canary", 0.2))
        judge.feedback(opinion(777_777, "canary", 0.0))
    verdict = of(judge.decision(), "feedback")
    assert verdict.verdict is Verdict.ABORT
    assert verdict.num_samples <= 401
    assert verdict.stable_value == pytest.approx(0.9, abs=0.02)


def test_a_leak_is_taken_back():
    """Memory that grows with every request of the new version, and not of the old."""
    judge = Judge(SETTINGS)
    for window in range(60):
        for lane, per_window in (("stable", 0), ("canary", 4_000_000)):
            at = BEGAN + 30.0 * window
            judge.memory(ProcessMemory(lane, f"{lane}-1", at, 200_000_000 + per_window * window, 150 * window))
    assert of(judge.decision(), "memory").verdict is Verdict.ABORT
    assert "MiB" in judge.decision().reason


def test_an_experiment_is_reported_and_never_promoted():
    """Only errors can end it."""
    settings = replace(SETTINGS, intent="experiment")
    decision = judged(settings, 6, Lane(), Lane(seconds_per_token=0.04), num_sessions=400)
    assert decision.verdict is Verdict.WAIT
    assert decision.reason == "an experiment is reported, never promoted"
    assert judged(settings, 6, Lane(), Lane(error_share=0.5), num_sessions=400).verdict is Verdict.ABORT


def test_who_meets_the_canary_counts_from_the_beginning_on():
    """Once, whether the end is heard or not; an end of which no beginning was heard counts itself."""
    judge = Judge(SETTINGS)
    for session in (1, 2, 2):
        judge.begin(Beginning("canary", session))
    judge.begin(Beginning("stable", 3))
    judge = Judge.load(SETTINGS, json.loads(json.dumps(judge.dump())))
    now = judge.decision()
    assert (now.num_exposed_sessions, now.num_exposed_requests, now.num_running) == (2, 3, 3)
    for number, was_told_of in enumerate((True, True, True, True, False)):
        judge.observe(Observation(f"r{number}", "canary", 2 + number, BEGAN + 100, was_told_of=was_told_of))
    now = judge.decision()
    assert (now.num_exposed_sessions, now.num_exposed_requests, now.num_running) == (6, 5, 0)
    old = {name: kept for name, kept in judge.dump().items() if name != "running"}
    assert Judge.load(SETTINGS, old).decision() == now


def test_shares_differ_by_no_more_than_all_of_it():
    """However little is known: an interval ends where a difference can."""
    for stable, canary, end in ((0.0, 1.0, "high"), (1.0, 0.0, "low")):
        judge = Judge(BETTER)
        judge.golden(GoldenResult("q", stable, canary))
        assert getattr(of(judge.decision(), "golden"), end) == canary - stable


def test_other_lanes_and_the_warm_up_prove_nothing():
    """They are ignored; what met the canary counts as exposed all the same."""
    judge = Judge(SETTINGS)
    judge.observe(Observation("r1", "elsewhere", 1, BEGAN + 100, "INTERNAL"))
    for number in range(50):
        judge.observe(Observation(f"c{number}", "canary", number, BEGAN + number, "INTERNAL"))
        judge.observe(Observation(f"s{number}", "stable", number + 100, BEGAN + number))
    decision = judge.decision()
    assert (decision.verdict, decision.metrics) == (Verdict.WAIT, ())
    assert (decision.num_exposed_requests, decision.num_exposed_sessions) == (50, 50)


def test_workers_grow_warm_while_the_rollout_does():
    """Their latencies count as soon as its warm-up is over, not two minutes after that."""
    judge = Judge(SETTINGS)
    for number in range(500):
        lane, at = "canary" if number % 2 else "stable", BEGAN + number * 0.4
        answer = Observation("r", lane, number, at, "ok", 0.1, 0.02, num_answer_tokens=20, worker=f"worker of {lane}")
        judge.observe(answer)
    assert of(judge.decision(), "per_token").num_samples > 0


def test_what_is_no_number_is_passed_over():
    """A broken reporter cannot blind the judge."""
    judge, nan, inf = Judge(SETTINGS), float("nan"), float("inf")
    for number in range(60):
        lane = "canary" if number % 2 else "stable"
        wrong = inf if number % 3 else nan
        judge.observe(Observation("r", lane, number, nan))
        judge.observe(Observation("r", lane, 100 + number, BEGAN + 200 + number, "ok", wrong, wrong, worker="w"))
        judge.score(ShadowScore(number, "stable", lane, 5, wrong, -1.0, wrong))
        judge.golden(GoldenResult(f"q{number}", wrong, 1.0))
        judge.feedback(opinion(number, lane, wrong))
    for second in range(120):
        judge.observe(Observation("r", "stable", 900 + second, BEGAN + 260 + second))
    decision = judge.decision()
    assert [verdict.metric for verdict in decision.metrics] == ["errors"]
    assert of(decision, "errors").num_samples == 30
    json.dumps(judge.dump(), allow_nan=False)


@pytest.mark.parametrize("num_before", [0, 30, 700])
def test_a_restart_changes_nothing(num_before):
    """Dumped, sent as JSON and loaded at any time: it says the same, then and after whatever follows."""
    stable, canary = Lane(), Lane(error_share=0.02)
    first, again = Judge(SETTINGS), Judge(SETTINGS)
    traffic = sessions(7, stable, canary, weight=0.3)
    for number in range(num_before + 800):
        if number == num_before:
            again = Judge.load(SETTINGS, json.loads(json.dumps(first.dump())))
            assert again.decision() == first.decision()
        observation = next(traffic)
        first.observe(observation)
        if number >= num_before:
            again.observe(observation)
    assert again.decision() == first.decision()


def test_what_is_kept_is_bounded():
    """Hundreds of thousands of sessions leave no more than tens of thousands of bytes of what is known."""
    judge = Judge(SETTINGS)
    for number in range(60_000):
        lane = "canary" if number % 10 == 0 else "stable"
        judge.observe(Observation(f"r{number}", lane, number, BEGAN + 100 + number * 0.01, worker=f"w{number % 3000}"))
    assert len(json.dumps(judge.dump())) < 400_000


def dying(judge, kill_at, dead_s, heard_late_s, after_s=400.0):
    """Equal lanes at a request a second each; the old one fails whatever comes while it is dead."""
    for number in range(int(kill_at + dead_s + after_s)):
        at = BEGAN + 60.0 + number
        dead = kill_at <= number < kill_at + dead_s
        if dead and number >= kill_at + heard_late_s:
            judge.leave_out(at - 1.0, at)
        judge.observe(Observation(f"o{number}", "stable", 2 * number, at, "UNAVAILABLE" if dead else "ok"))
        judge.observe(
            Observation(f"n{number}", "canary", 2 * number + 1, at, "UNAVAILABLE" if number % 60 == 0 else "ok")
        )


def test_errors_of_an_old_version_that_takes_no_calls_excuse_nobody():
    """Told some seconds late, of both lanes nothing of that time counts, over a dump too; who met the new one does."""
    judge = Judge(SETTINGS)
    dying(judge, 100, 30, heard_late_s=3)
    errors = of(judge.decision(), "errors")
    assert (errors.stable_value, errors.canary_value > 0.01) == (0.0, True)
    assert errors.note.endswith("; 37 s left out: the old version took no calls, or just before or after")
    assert 530 - 37 - 120 < errors.num_samples < 530 - 37
    assert judge.decision().num_exposed_requests == 530
    again = Judge.load(SETTINGS, json.loads(json.dumps(judge.dump())))
    again.observe(Observation("late", "stable", 1 << 20, BEGAN + 175.0, "UNAVAILABLE"))
    again.observe(Observation("tick", "stable", 1 << 21, BEGAN + 900.0))
    again.observe(Observation("tock", "canary", 1 << 22, BEGAN + 990.0))
    again.observe(Observation("tuck", "canary", 1 << 23, BEGAN + 1_900.0))
    assert of(again.decision(), "errors").stable_value == 0.0
    kept = judge.dump()
    del kept["gaps"]
    assert Judge.load(SETTINGS, kept).decision().num_exposed_requests == 530
