"""Caches are judged on what they save: tokens reused, time to the first token with the recall in it, failed recalls."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from control_judged import SETTINGS, Lane, of, sessions
from serin_control.judge.forecast import forecast
from serin_control.judge.judge import Judge
from serin_control.judge.observation import Observation, Recall
from serin_control.judge.readings import Readings
from serin_control.judge.settings import JudgeSettingsInvalid
from serin_control.judge.verdict import Decision, Verdict

CACHES = replace(SETTINGS, subject="cache")
RECALLED = Observation(
    "r", "stable", 1, 1000.0, first_token_s=0.1, num_uncached_tokens=20, num_cached_tokens=80, worker_load=2,
    recall=Recall.PREFIX, recall_s=0.002,
)  # fmt: skip


@dataclass(frozen=True)
class Cache:
    """How a cache behaves: shares of prompts that are reused, of answers found, of recalls that fail; their time."""

    hit_share: float = 0.6
    answer_share: float = 0.3
    failed_share: float = 0.0
    recall_s: float = 0.002


def observed(seed: int, stable: Cache, canary: Cache) -> Iterator[Observation]:
    """Traffic of two lanes that differ in their cache alone; what is not reused has to be computed."""
    rng = random.Random(seed)
    for one in sessions(seed, Lane(), Lane(), weight=0.3):
        cache = canary if one.lane == "canary" else stable
        failed = rng.random() < cache.failed_share
        answered = not failed and rng.random() < cache.answer_share
        hit = answered or (not failed and rng.random() < cache.hit_share)
        reused = one.num_uncached_tokens if answered else int(one.num_uncached_tokens * 0.9) if hit else 0
        yield replace(
            one,
            num_uncached_tokens=one.num_uncached_tokens - reused,
            num_cached_tokens=reused,
            first_token_s=0.0 if answered else one.first_token_s * (0.3 if hit else 1.0),
            recall=_outcome(failed, answered, hit),
            recall_s=cache.recall_s,
            worker="",
        )


def _outcome(failed: bool, answered: bool, hit: bool) -> Recall:
    if failed:
        return Recall.FAILED
    if answered:
        return Recall.ANSWER
    return Recall.PREFIX if hit else Recall.MISSED


def judged(stable: Cache, canary: Cache, num_sessions: int = 1500, seed: int = 1, **settings) -> Decision:
    """What is said as soon as it is decided, or after so many sessions on the new cache."""
    judge = Judge(replace(CACHES, **settings))
    for number, one in enumerate(observed(seed, stable, canary)):
        judge.observe(one)
        if number % 50 == 0:
            decision = judge.decision()
            if decision.verdict is not Verdict.WAIT or decision.num_exposed_sessions >= num_sessions:
                return decision
    raise AssertionError("sessions never end")


@pytest.mark.parametrize(
    ("canary", "metric"),
    [
        (Cache(hit_share=0.1), "cache_hit_rate"),
        (Cache(answer_share=0.0, hit_share=0.9), "stored_answers"),
        (Cache(failed_share=0.3), "recall_errors"),
        (Cache(recall_s=0.09), "first_token"),
    ],
)
def test_a_bad_cache_is_taken_back(canary, metric):
    """One that finds little, one that fails, one that is slow: though no request fails for it."""
    decision = judged(Cache(), canary)
    assert decision.verdict is Verdict.ABORT
    assert of(decision, metric).verdict is Verdict.ABORT
    assert of(decision, "errors").verdict is not Verdict.ABORT


def test_an_equal_cache_is_promoted():
    """On five metrics; nobody has to score answers, which the workers make on both sides."""
    decision = judged(Cache(), Cache(), num_sessions=4000, tolerances={"errors": 0.02, "recall_errors": 0.02})
    assert decision.verdict is Verdict.PROMOTE
    assert decision.quality_judged
    assert {v.metric for v in decision.metrics if not v.note.startswith("shown, not judged")} == {
        "errors", "first_token", "cache_hit_rate", "stored_answers", "recall_errors",
    }  # fmt: skip
    assert of(decision, "cache_hit_rate").stable_value == pytest.approx(0.68, abs=0.05)


def test_what_is_reused_is_a_share_of_the_prompt():
    """A stored answer reuses all of it; who failed otherwise says nothing."""
    readings = Readings(0.0, of_caches=True)
    assert dict(readings.of(RECALLED, is_new=False))["cache_hit_rate"] == pytest.approx(0.2)
    answer = replace(RECALLED, num_uncached_tokens=0, num_cached_tokens=100, recall=Recall.ANSWER, first_token_s=0.0)
    assert dict(readings.of(answer, is_new=False))["cache_hit_rate"] == 0.0
    assert dict(readings.of(answer, is_new=False))["stored_answers"] == 0.0
    assert dict(readings.of(RECALLED, is_new=False))["stored_answers"] == 1.0
    assert "cache_hit_rate" not in dict(readings.of(replace(RECALLED, reason="INTERNAL"), is_new=False))


@pytest.mark.parametrize(
    ("recall", "burden"),
    [(Recall.FAILED, 1.0), (Recall.MISSED, 0.0), (Recall.ANSWER, 0.0), (Recall.SKIPPED, None), (Recall.UNKNOWN, None)],
)
def test_only_recalls_that_were_tried_can_fail(recall, burden):
    """Where nobody was asked nobody failed, and nobody did well either."""
    burdens = dict(Readings(0.0, of_caches=True).of(replace(RECALLED, recall=recall), is_new=False))
    assert burdens.get("recall_errors") == burden


def test_the_time_to_the_first_token_has_the_recall_in_it():
    """Prompts of one length are compared, whatever was reused; a stored answer takes its recall only."""
    readings = Readings(0.0, of_caches=True)
    for _ in range(50):
        readings.of(RECALLED, is_new=False)
    usual = dict(readings.of(RECALLED, is_new=True))["first_token"]
    slower = dict(readings.of(replace(RECALLED, recall_s=0.1), is_new=True))["first_token"]
    missed = replace(RECALLED, num_uncached_tokens=100, num_cached_tokens=0, first_token_s=0.4)
    answer = replace(RECALLED, recall=Recall.ANSWER, first_token_s=0.0)
    assert usual == pytest.approx(0.5)
    assert slower > usual
    assert dict(readings.of(missed, is_new=True))["first_token"] > slower
    assert dict(readings.of(answer, is_new=True))["first_token"] < usual
    assert "first_token" not in dict(readings.of(replace(RECALLED, first_token_s=0.0), is_new=True))


def test_other_rollouts_do_not_look_at_caches():
    """New weights begin with a cold cache: that is no reason to take them back."""
    burdens = dict(Readings(0.0).of(RECALLED, is_new=False))
    assert not {"cache_hit_rate", "stored_answers", "recall_errors"} & burdens.keys()
    with pytest.raises(JudgeSettingsInvalid, match="cache_hit_rate: accepted where a cache is rolled out only"):
        replace(SETTINGS, tolerances={"cache_hit_rate": 0.1})


def test_the_parts_of_the_error_rate_are_no_more_than_the_whole():
    """Half for errors, the rest for the other four."""
    judged_metrics = ("errors", "first_token", "cache_hit_rate", "stored_answers", "recall_errors")
    assert sum(map(CACHES.abort_error_rate, judged_metrics)) == pytest.approx(CACHES.error_rate)


def test_what_a_step_needs_is_foreseen():
    """Of the metrics that are judged of a cache."""
    told = forecast(CACHES, 2.0, 3.0, 0.25)
    assert set(told.sessions_by_metric) == {
        "errors", "first_token", "cache_hit_rate", "stored_answers", "recall_errors",
    }  # fmt: skip
    assert (told.texts, set(told.detectable)) == (0, set(told.sessions_by_metric))
    assert 0.0 < told.detectable["cache_hit_rate"] < 0.05


def test_a_restart_changes_nothing():
    """What was kept as JSON decides the same."""
    judge = Judge(CACHES)
    traffic = observed(3, Cache(), Cache(hit_share=0.5))
    for _ in range(400):
        judge.observe(next(traffic))
    again = Judge.load(CACHES, json.loads(json.dumps(judge.dump())))
    for _ in range(400):
        one = next(traffic)
        judge.observe(one)
        again.observe(one)
    assert again.decision() == judge.decision()
