"""What one observation says: failures, endings, latencies next to what is usual; as burdens from 0 to 1."""

import json
from dataclasses import replace

import pytest
from serin_control.judge.observation import Observation, ShadowScore
from serin_control.judge.readings import Readings, began_at, of_score

OK = Observation(
    "r", "stable", 1, 1000.0, first_token_s=0.1, seconds_per_token=0.02, num_uncached_tokens=50, worker_load=2,
    num_answer_tokens=51, finish_reasons={"stop": 1}, worker="w1",
)  # fmt: skip


def taught(warm_up_s=0.0):
    """Readings that know what is usual."""
    readings = Readings(warm_up_s)
    for _ in range(50):
        readings.of(OK, is_new=False)
    return readings


def test_a_usual_answer_is_in_the_middle():
    """Neither slow nor fast, neither long nor short, not failed, not cut off."""
    burdens = dict(taught().of(OK, is_new=True))
    assert burdens == pytest.approx(
        {"errors": 0.0, "finish_reasons": 0.0, "answer_length": 0.5, "first_token": 0.5, "per_token": 0.5}
    )


def test_what_is_slow_weighs_more_the_slower():
    """And never more than 1."""
    readings = taught()
    slow = dict(readings.of(replace(OK, seconds_per_token=0.03, first_token_s=1e5), is_new=True))
    assert 0.5 < slow["per_token"] < 1.0
    assert slow["first_token"] == 1.0


def test_slow_under_load_is_not_slow():
    """A request is compared with those that met the same load."""
    readings = taught()
    busy = replace(OK, worker_load=40, seconds_per_token=0.1)
    assert "per_token" not in dict(readings.of(busy, is_new=True))
    for _ in range(50):
        readings.of(busy, is_new=False)
    assert dict(readings.of(busy, is_new=True))["per_token"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reason", "burden"),
    [("ok", 0.0), ("CANCELLED", 0.0), ("RATE_LIMITED", 0.0), ("INTERNAL", 1.0), ("LANE_LOST", 1.0)],
)
def test_what_callers_do_is_no_failure(reason, burden):
    """Whoever hangs up or asks too often is not the version's fault; all else is."""
    assert dict(taught().of(replace(OK, reason=reason), is_new=True))["errors"] == burden


def test_cold_workers_and_resumed_answers_have_no_latencies():
    """A worker's first minutes are left out, and so is what went on on another worker."""
    readings = taught(warm_up_s=60.0)
    fresh = replace(OK, worker="w2", finished_at=2000.0)
    assert "per_token" not in dict(readings.of(fresh, is_new=True))
    assert "per_token" not in dict(readings.of(replace(fresh, finished_at=2030.0), is_new=True))
    for number in range(50):
        readings.of(replace(OK, finished_at=2070.0 + number), is_new=False)
    assert "per_token" in dict(readings.of(replace(fresh, finished_at=2200.0), is_new=True))
    assert "per_token" not in dict(readings.of(replace(fresh, finished_at=2200.0, num_resumes=1), is_new=True))


def test_answers_are_read_where_something_is_known_of_them():
    """Schemas and refusals only where somebody looked."""
    seen = replace(OK, schema_valid=False, refused=True, finish_reasons={"length": 1, "stop": 1})
    burdens = dict(taught().of(seen, is_new=True))
    assert (burdens["schema_valid"], burdens["refusals"], burdens["finish_reasons"]) == (1.0, 1.0, 0.5)
    failed = dict(taught().of(replace(seen, reason="INTERNAL"), is_new=True))
    assert "schema_valid" not in failed


def test_scores_are_compared_by_their_distance():
    """More likely or less likely is a change all the same."""
    up, down = (ShadowScore(1, "s", "c", 10, -1.0, -1.0 + shift, 0.9) for shift in (0.05, -0.05))
    assert dict(of_score(up)) == pytest.approx({"answers": 0.5, "agreement": 0.1})
    assert dict(of_score(up)) == pytest.approx(dict(of_score(down)))


def test_a_request_began_before_its_tokens():
    """First token, then one after the other."""
    assert began_at(OK) == pytest.approx(1000.0 - 0.1 - 50 * 0.02)


def test_dumped_and_loaded_it_knows_the_same():
    """Through JSON."""
    readings = taught(60.0)
    again = Readings.load(60.0, json.loads(json.dumps(readings.dump())))
    assert again.of(OK, is_new=True) == readings.of(OK, is_new=True)
    assert again.dump() == readings.dump()
