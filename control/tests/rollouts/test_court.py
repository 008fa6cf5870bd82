"""The real judge, appointed for a rollout: it goes on where it was, and says what it would need."""

import json
from dataclasses import replace

import pytest
from control_rollouts import CANARY, STABLE, rollout, spec
from serin_control.errors import JudgeUnreadable, RolloutInvalid
from serin_control.judge.observation import Observation
from serin_control.judge.settings import Intent
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.spec import LONGEST_STEP_S, Step
from serin_control.rollouts.starting import MOST_SESSIONS_PER_S

RUNNING = replace(rollout(), stable_lane=STABLE, canary_lane=CANARY)


def test_a_judge_goes_on_from_what_was_kept():
    """Over JSON; what another version kept in another shape is refused, and one that begins anew counts on."""
    first = JudgeCourt().appoint(RUNNING, None)
    for number in range(40):
        first.observe(Observation(f"r{number}", CANARY if number % 2 else STABLE, number, 2000.0 + number))
    kept = json.loads(json.dumps(first.dump()))
    again = JudgeCourt().appoint(RUNNING, kept)
    assert again.decision() == first.decision()
    assert again.decision().num_exposed_requests == 20
    for odd in ({"now": 1}, {"future": True}, {"now": "x", "readings": 3}):
        with pytest.raises(JudgeUnreadable):
            JudgeCourt().appoint(RUNNING, odd)
    anew = JudgeCourt().appoint(replace(RUNNING, num_requests=20, num_running=2, num_sessions=7), None).decision()
    assert (anew.num_exposed_requests, anew.num_exposed_sessions, anew.metrics) == (18, 7, ())


def test_every_intent_has_a_judge():
    """Settings are what the judge takes."""
    for intent in Intent:
        JudgeCourt().appoint(replace(RUNNING, spec=spec(intent=intent)), None).decision()
        JudgeCourt().check(spec(intent=intent))


@pytest.mark.parametrize(
    ("tolerances", "said"),
    [
        ({"errors": 5.0}, "tolerances.errors: 5: accepted: above 0 and below 0.9, a share: 0.01 is 1 point"),
        ({"per_token": 9.0}, "tolerances.per_token: 9: accepted: above 0 and below 6.225, a ratio: 0.1 is 10 %"),
        ({"memory": -1.0}, "tolerances.memory: -1: accepted: above 0 bytes"),
        ({"cache_hit_rate": 0.1}, "tolerances.cache_hit_rate: accepted where a cache is rolled out only"),
    ],
)
def test_a_tolerance_out_of_range_is_refused_with_the_range(tolerances, said):
    """By its key, so that who wrote a plan file is told the line."""
    with pytest.raises(RolloutInvalid) as refused:
        JudgeCourt().check(spec(tolerances=tolerances))
    assert str(refused.value) == said


def test_memory_may_grow_by_as_much_as_somebody_says():
    """It is tested by signs: no tolerance is too large."""
    JudgeCourt().check(spec(tolerances={"memory": 8.0 * 2**20}))


def test_more_traffic_and_more_weight_need_less_time():
    """Samples, seconds, and what a step's own time can show."""
    slow = JudgeCourt().forecast(spec(), Step(100, 1, 86_400.0), 2.0, 3.0, 0)
    fast = JudgeCourt().forecast(spec(), Step(2_500, 1, 86_400.0), 2.0, 3.0, 0)
    assert slow.seconds > fast.seconds > 0
    assert slow.samples > 0
    assert 0 < fast.detectable["errors"] < slow.detectable["errors"]


def test_no_traffic_shows_everything():
    """The most that a rollout is credited with before any traffic leaves tolerances that it cannot show."""
    most = JudgeCourt().forecast(spec(), Step(5_000, 1, LONGEST_STEP_S), MOST_SESSIONS_PER_S, 1.0, 0)
    assert min(most.detectable.values()) > 1e-7
    assert most.detectable["errors"] < JudgeCourt().metrics["errors"]
