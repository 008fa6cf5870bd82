"""What a rollout will need: enough, not much too much, and honest about what it cannot show."""

import math
from dataclasses import replace

import pytest
from control_judged import SETTINGS, Lane, judged, of, questions
from serin_control.judge.bets import Bets
from serin_control.judge.forecast import Usual, forecast
from serin_control.judge.judge import Judge
from serin_control.judge.memory import Growth, fewest_windows
from serin_control.judge.metrics import METRICS
from serin_control.judge.need import Beside
from serin_control.judge.observation import ProcessMemory
from serin_control.judge.verdict import Verdict

BETTER = replace(SETTINGS, intent="better")
LOOSE = replace(SETTINGS, tolerances={"errors": 0.05, "answers": 0.01, "agreement": 0.1, "finish_reasons": 0.2})


def test_the_slowest_metric_says_how_long():
    """Requests and seconds follow from rate, weight and sessions."""
    step = forecast(SETTINGS, sessions_per_s=2.0, requests_per_session=3.0, weight=0.25)
    assert max(step.sessions_by_metric.values()) == step.sessions_by_metric["errors"]
    assert step.sessions == pytest.approx(1.2 * step.sessions_by_metric["errors"], abs=1)
    assert step.samples == 3 * step.sessions
    assert step.seconds == pytest.approx(step.sessions / 0.5 + 90.0)


def test_equal_versions_are_promoted_within_what_is_stated():
    """At least most of five."""
    step = forecast(LOOSE, 1.0, 2.0, 0.2, usual=Usual(error_share=0.002))
    ended = [judged(LOOSE, seed, Lane(0.002), Lane(0.002), num_sessions=step.sessions + 100) for seed in range(5)]
    assert sum(decision.verdict is Verdict.PROMOTE for decision in ended) >= 4


def test_finer_tolerances_and_rarer_sessions_take_longer():
    """The way it must be."""
    step = forecast(SETTINGS, 2.0, 3.0, 0.25)
    assert forecast(LOOSE, 2.0, 3.0, 0.25).sessions < step.sessions
    assert forecast(SETTINGS, 1.0, 3.0, 0.25).seconds > step.seconds
    assert forecast(SETTINGS, 2.0, 3.0, 0.25, usual=Usual(error_share=0.05)).sessions > step.sessions


def test_a_tolerance_that_the_traffic_cannot_show_is_named():
    """With what it can show instead."""
    step = forecast(SETTINGS, sessions_per_s=0.1, requests_per_session=3.0, weight=0.05, within_s=24 * 3600.0)
    assert step.detectable["errors"] > SETTINGS.tolerance("errors")
    assert step.detectable["per_token"] < SETTINGS.tolerance("per_token")
    enough = forecast(SETTINGS, 50.0, 3.0, 0.25, within_s=24 * 3600.0, beside=Beside(0, 0.2, 0.25))
    judged_here = {name for name in METRICS if SETTINGS.is_judged(name)}
    assert set(enough.detectable) == judged_here
    assert all(SETTINGS.tolerance(name) > least for name, least in enough.detectable.items())


def test_no_traffic_shows_nothing():
    """It takes as good as forever, and there is a figure for it."""
    step = forecast(SETTINGS, sessions_per_s=0.0, requests_per_session=1.0, weight=0.05, within_s=3600.0)
    assert step.seconds > 1e9
    assert set(step.detectable.values()) == {math.inf}


@pytest.mark.parametrize(("factor", "said"), [(1.02, Verdict.PROMOTE), (0.95, Verdict.WAIT)])
def test_what_a_golden_set_can_show_is_what_the_judge_finds(factor, said):
    """Questions that both versions answer alike clear what is stated, and nothing finer; one clears nothing."""
    least = {n: forecast(BETTER, 2.0, 3.0, 0.5, 60.0, beside=Beside(n)).detectable["golden"] for n in (0, 1, 150)}
    assert (least[0], least[1] > 0.9) == (math.inf, True)
    judge = Judge(replace(BETTER, tolerances={"golden": factor * least[150]}))
    for result in questions(150, 0.7, 0.7):
        judge.golden(result)
    assert of(judge.decision(), "golden").verdict is said


@pytest.mark.parametrize(("factor", "said"), [(1.05, Verdict.PROMOTE), (0.9, Verdict.WAIT)])
def test_what_faultless_sessions_can_show_is_what_the_bets_say(factor, said):
    """Of agreement, schemas, refusals and feedback it is a bound: no sessions show less than faultless ones."""
    num_texts = 600
    share = 0.2 * 0.75  # of 4,000 sessions on the old version, one request each
    step = forecast(SETTINGS, 2.0, 1.0, 0.5, num_texts / share, beside=Beside(0, 0.2, 0.25))
    bets = Bets(METRICS["agreement"].to_burden(factor * step.detectable["agreement"]))
    for _ in range(num_texts // 30):
        bets.settle({0.0: 10}, {0.0: 30})
    cleared = bets.evidence_below(1) >= -math.log(SETTINGS.error_rate)
    assert cleared == (said is Verdict.PROMOTE)


def test_growth_of_memory_is_known_to_a_page_and_a_window():
    """More requests make windows finer; too few make none that clears a process."""
    least = [forecast(SETTINGS, rate, 1.0, 0.5, 3600.0).detectable["memory"] for rate in (0.1, 2.0, 200.0)]
    assert least == [math.inf, 4096 * 1000 / 50, pytest.approx(4096 * 1000 / 1000)]
    windows = fewest_windows(SETTINGS.error_rate)
    growth = Growth(0.0)
    for number in range(windows + 1):
        assert growth.evidence_below(1.0) < -math.log(SETTINGS.error_rate)
        growth.add(ProcessMemory("canary", "w", 10.0 * number, 1 << 30, 50 * number))
    assert growth.evidence_below(1.0) >= -math.log(SETTINGS.error_rate)


def test_the_last_step_compares_nothing():
    """With all traffic on the new version there is nothing to compare it with."""
    step = forecast(SETTINGS, 2.0, 3.0, 1.0)
    assert (step.samples, step.seconds, dict(step.detectable)) == (0, 0.0, {})


def test_texts_to_score_are_named_where_answers_are_judged():
    """They are the old version's: they add nothing to what the new one's callers meet."""
    assert 100 < forecast(SETTINGS, 2.0, 3.0, 0.25).texts < 2000
    assert forecast(replace(SETTINGS, intent="better"), 2.0, 3.0, 0.25).texts == 0
