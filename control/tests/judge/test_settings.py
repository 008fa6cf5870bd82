"""What a judge can be told, and what it refuses."""

from dataclasses import replace

import pytest
from control_judged import SETTINGS
from serin_control.judge.metrics import METRICS
from serin_control.judge.settings import JudgeSettingsInvalid, UnknownMetric


def test_an_unknown_metric_is_refused_with_the_known_ones():
    """A person can act on the sentence."""
    with pytest.raises(UnknownMetric, match=r"unknown metric 'speed'; known are: errors, first_token, per_token"):
        replace(SETTINGS, tolerances={"speed": 0.1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"tolerances": {"errors": 0.0}},
        {"tolerances": {"errors": -0.1}},
        {"tolerances": {"errors": 1.5}},
        {"tolerances": {"errors": float("nan")}},
        {"error_rate": 0.0},
        {"error_rate": 0.5},
        {"intent": "worse"},
        {"canary_lane": "stable"},
        {"warm_up_s": -1.0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    """Nothing is judged by rules that cannot hold."""
    with pytest.raises(JudgeSettingsInvalid):
        replace(SETTINGS, **wrong)


@pytest.mark.parametrize("intent", ["same", "better", "experiment"])
def test_the_parts_of_the_error_rate_are_no_more_than_the_whole(intent):
    """A version no worse than the old is taken back by any metric in at most the stated share of rollouts."""
    settings = replace(SETTINGS, intent=intent)
    parts = [settings.abort_error_rate(name) * (1 + settings.is_two_sided(name)) for name in METRICS]
    judged = [part for name, part in zip(METRICS, parts, strict=True) if settings.is_judged(name)]
    assert sum(judged) == pytest.approx(settings.error_rate)
