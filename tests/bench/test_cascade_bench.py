"""The benchmark of cascades: its arithmetic is checked by hand, its whole path by a small run of a real mesh."""

import json
import sys
from array import array
from pathlib import Path

import pytest
from serin_mesh.prompt_classifier import PromptClassifier

sys.path.insert(0, str(Path(__file__).parent))

NEVER = PromptClassifier(8, 1, 1, -50.0, 0.0, array("b", bytes(256)))


def test_questions_of_the_three_sets_are_apart():
    """What is reported was neither learned from nor tuned on; kinds weigh the same on both sides."""
    from cascade_asking import questions

    asked = questions(200)
    learn, tune, test = (
        {json.dumps([list(item.messages), item.answer]) for item in part}
        for part in (asked.learn, asked.tune, asked.test)
    )
    assert (len(learn), len(tune), len(test)) == (200, 606, 606)
    assert not learn & tune
    assert not learn & test
    assert not tune & test
    assert [item.kind for item in asked.test] == [item.kind for item in asked.tune]
    assert not any(item.held_out for item in asked.learn)
    assert all(item.held_out for item in (*asked.tune, *asked.test))


def test_a_point_by_hand():
    """Two questions; the first model is wrong and unsure of one: both costs for it, one for the other."""
    from cascade_asking import Answer
    from cascade_sweep import Pair, Sweep, best

    def said(text, right, logprobs):
        return Answer("k", text, right, True, 8, 2, logprobs)

    pairs = [
        Pair(said("easy", True, [-0.1, -0.1]), said("easy", True, ()), 2.0, 10.0),
        Pair(said("7 + 8", False, [-0.1, -1.5]), said("7 + 8", True, ()), 2.0, 30.0),
    ]
    sweep = Sweep(pairs, NEVER)
    assert (sweep.first_accuracy, sweep.then_accuracy) == (0.5, 1.0)
    curves = sweep.curves()
    least = {point.threshold: point for point in curves["min_logprob_below"]}
    assert (least[-1.0].accuracy, least[-1.0].cost, least[-1.0].escalated) == (1.0, 34 / 40, 0.5)
    assert (least[-2.0].accuracy, least[-2.0].cost) == (0.5, 4 / 40)
    (pattern,) = curves["prompt_matches"]
    assert (pattern.accuracy, pattern.cost) == (1.0, (2 + 30) / 40)  # the first model is not asked what matches
    assert {point.escalated for point in curves["classifier"]} == {0.0}
    assert sweep.oracle().cost == 34 / 40
    assert sweep.by_chance(0.5).accuracy == 0.75
    assert best(curves["min_logprob_below"], 0.99).cost == 34 / 40
    assert best(curves["classifier"], 0.99) is None


@pytest.mark.long
def test_a_small_run_reports_what_it_promises(tmp_path: Path):
    """A real mesh, a tenth of the questions: every rule has a row of the cascade itself, and money from the ledger."""
    import cascade

    assert cascade.main(["--small", "--out", str(tmp_path), "--docs", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    first, then = figures["alone"]
    assert then["cost"] == 1.0
    share = cascade.first_price() / cascade.THEN_PRICE
    tokens = [row["prompt_tokens"] + row["completion_tokens"] for row in (first, then)]
    assert first["cost"] == pytest.approx(share * tokens[0] / tokens[1], rel=1e-3)
    assert len(figures["live"]) == len(cascade.RULES)
    for row in figures["live"]:
        assert row["cost"] == pytest.approx(share + row["escalated"], abs=0.4)
    page = (tmp_path / "cascades.md").read_text(encoding="utf-8")
    assert "mean_logprob_below" in page
    assert (tmp_path / "cascades" / "curves.svg").read_text(encoding="utf-8").startswith("<svg")
