"""From metrics to one verdict, and the sentence that says why."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from control_judged import SETTINGS, of
from serin_control.judge.bets import Bets
from serin_control.judge.decide import Known, decide
from serin_control.judge.memory import Growth
from serin_control.judge.metrics import METRICS
from serin_control.judge.verdict import Verdict

BETTER = replace(SETTINGS, intent="better")


def bets(name, old_share, new_share, num_sessions=4000, settings=SETTINGS):
    """A metric's, after so many sessions of the new lane and four times as many of the old."""
    some = Bets(METRICS[name].to_burden(settings.tolerance(name)))
    rng = np.random.default_rng(1)
    for _ in range(num_sessions // 40):
        old, new = rng.binomial(160, old_share), rng.binomial(40, new_share)
        some.settle(*({k: v for k, v in ((0.0, n - x), (1.0, x)) if v} for n, x in ((160, old), (40, new))))
    return some


def known(**by_metric):
    """What a judge knows of these metrics, and nothing else."""
    return Known(
        by_metric, (Growth(0.0), Growth(0.0)), Counter(ok=9, INTERNAL=3), Counter(stop=5), (0.0, 0.0), 412, 138
    )


def test_one_bad_metric_takes_it_back():
    """However good the others are; with figures, in plain words."""
    decision = decide(SETTINGS, known(errors=bets("errors", 0.001, 0.03), answers=bets("answers", 0.0, 0.0)))
    assert decision.verdict is Verdict.ABORT
    assert decision.reason.startswith("errors 3.1 % against 0.1 % (+")
    assert decision.reason.endswith("points, 4,000 sessions)")
    assert (decision.num_exposed_requests, decision.num_exposed_sessions) == (412, 138)
    assert of(decision, "errors").note == "INTERNAL 3"


def test_it_is_promoted_when_all_agree():
    """Errors and answers are known well enough."""
    decision = decide(SETTINGS, known(errors=bets("errors", 0.001, 0.001), answers=bets("answers", 0.0, 0.0)))
    assert decision.verdict is Verdict.PROMOTE


def test_what_is_missing_most_is_named():
    """With what was seen so far and what is tolerated."""
    some = known(errors=bets("errors", 0.001, 0.001, 800), answers=bets("answers", 0.0, 0.0))
    decision = decide(SETTINGS, some)
    assert decision.verdict is Verdict.WAIT
    assert decision.reason.startswith("not known well enough yet: errors ")
    assert "tolerated 0.5 points; about " in decision.reason
    assert decision.reason.endswith("00 sessions are needed")


def test_without_quality_nobody_but_a_person_promotes():
    """For either intent, and it says what is missing."""
    fine = bets("errors", 0.001, 0.001)
    assert "no answer was scored on both versions" in decide(SETTINGS, known(errors=fine)).reason
    decision = decide(BETTER, known(errors=fine))
    assert (decision.verdict, decision.quality_judged) == (Verdict.WAIT, False)
    assert "no golden set" in decision.reason or "there is no golden set" in decision.reason


def test_changed_answers_are_no_fault_where_they_may_change():
    """They are shown."""
    some = known(errors=bets("errors", 0.001, 0.001), answers=bets("answers", 0.0, 0.9))
    assert decide(SETTINGS, some).verdict is Verdict.ABORT
    decision = decide(BETTER, some)
    assert decision.verdict is Verdict.WAIT
    assert of(decision, "answers").difference > 0.05


def test_what_few_requests_can_show_keeps_nobody_waiting():
    """Three answers with a schema among thousands do not hold a rollout up; as the only sign of quality they do."""
    some = known(
        errors=bets("errors", 0.001, 0.001),
        answers=bets("answers", 0.0, 0.0),
        schema_valid=bets("schema_valid", 0.0, 0.0, 40),
    )
    assert decide(SETTINGS, some).verdict is Verdict.PROMOTE
    alone = known(errors=some.bets["errors"], schema_valid=some.bets["schema_valid"])
    assert decide(BETTER, alone).verdict is Verdict.WAIT


def test_a_share_of_which_less_is_worse_reads_naturally():
    """Valid answers fell: the difference is negative, its interval too, the tolerance positive."""
    some = known(errors=bets("errors", 0.0, 0.0), schema_valid=bets("schema_valid", 0.02, 0.3))
    verdict = of(decide(SETTINGS, some), "schema_valid")
    assert verdict.verdict is Verdict.ABORT
    assert verdict.low <= verdict.difference <= verdict.high < 0 < verdict.tolerance
    assert verdict.stable_value == pytest.approx(0.98, abs=0.01)
    assert verdict.canary_value == pytest.approx(0.7, abs=0.05)


def test_a_small_change_within_the_tolerance_is_seldom_taken_back():
    """Proven worse is not enough: it must probably be worse than tolerated."""
    some = known(errors=bets("errors", 0.001, 0.004, 12_000), answers=bets("answers", 0.0, 0.0))
    assert of(decide(SETTINGS, some), "errors").verdict is not Verdict.ABORT
