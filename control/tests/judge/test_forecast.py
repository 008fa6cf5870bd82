"""What a rollout will need: enough, not much too much, and honest about what it cannot show."""

from dataclasses import replace

import pytest
from control_judged import SETTINGS, Lane, judged
from serin_control.judge.forecast import Usual, forecast
from serin_control.judge.verdict import Verdict

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
    too_fine = step.too_fine(SETTINGS)
    assert too_fine["errors"] > SETTINGS.tolerance("errors")
    assert "per_token" not in too_fine
    enough = forecast(SETTINGS, 50.0, 3.0, 0.25, within_s=24 * 3600.0)
    assert enough.too_fine(SETTINGS) == {}


def test_no_traffic_shows_nothing():
    """It takes as good as forever, and there is a figure for it."""
    step = forecast(SETTINGS, sessions_per_s=0.0, requests_per_session=1.0, weight=0.05, within_s=3600.0)
    assert step.seconds > 1e9
    assert set(step.too_fine(SETTINGS)) == set(step.detectable)


def test_the_last_step_compares_nothing():
    """With all traffic on the new version there is nothing to compare it with."""
    step = forecast(SETTINGS, 2.0, 3.0, 1.0)
    assert (step.samples, step.seconds, dict(step.detectable)) == (0, 0.0, {})


def test_texts_to_score_are_named_where_answers_are_judged():
    """They are the old version's: they add nothing to what the new one's callers meet."""
    assert 100 < forecast(SETTINGS, 2.0, 3.0, 0.25).texts < 2000
    assert forecast(replace(SETTINGS, intent="better"), 2.0, 3.0, 0.25).texts == 0
