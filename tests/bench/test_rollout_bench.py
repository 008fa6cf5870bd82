"""The benchmark of rollouts runs and reports what it promises; its figures come from the long run."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def test_a_few_rollouts_are_simulated_and_reported(tmp_path: Path):
    """Bad versions are taken back and the report says so; what is there already is not simulated again."""
    import rollout

    flags = ["--runs", "2", "--seed", "17", "--cases", "c1,i", "--judges", "serin", "--processes", "1"]
    assert rollout.main([*flags, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [outcome["verdict"] for case in ("c1", "i") for outcome in results[case]["serin"]] == ["abort"] * 4
    assert rollout.main([*flags, "--out", str(tmp_path), "--minutes", "0"]) == 0
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| c1: weights rounded to 3 bits | 2 | **100.0 %**" in text
    assert "Rollouts of serin's judge: 2 of each case.\n" in text
    assert (tmp_path / "exposed.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_committed_report_says_of_how_many_rollouts_its_figures_are():
    """The numbers in its sentence are those of its tables, and every case that has fewer says why."""
    from rollout_cases import CASES
    from rollout_report import counted

    text = (Path(__file__).resolve().parents[2] / "docs" / "rollouts" / "results.md").read_text(encoding="utf-8")
    ours = {case: int(number.replace(",", "")) for case, number in re.findall(r"\| (\w+): [^|]+\| ([0-9,]+) \|", text)}
    others = [
        int(number) for row in re.findall(r"^\| errors > .*", text, re.M) for number in re.findall(r"% of (\d+)", row)
    ]
    assert ours.keys() == CASES.keys()
    assert len(others) == 7 * len(CASES)
    assert counted(ours, others) in text
    assert all(CASES[case].why_fewer for case, number in ours.items() if number < max(ours.values()))


def test_the_committed_trace_is_what_its_recipe_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever changes the recipe writes the trace again."""
    import rollout_traces

    committed = rollout_traces.read_trace()
    monkeypatch.setattr(rollout_traces, "FOLDER", tmp_path)
    rollout_traces.main()
    assert rollout_traces.read_trace() == committed
    assert 3.0 < committed.mean_requests() < 6.0


def test_thresholds_take_back_what_fails_often():
    """More failed measurements than are borne; and promote what passes enough of them."""
    from rollout_threshold import INTERVAL_S, Limits, ThresholdJudge
    from rollout_traffic import CANARY, STABLE, Seen

    def verdict(share_failed: float) -> str:
        judge = ThresholdJudge(Limits("", 0.05, 1.2, max_failed=2, num_measured=10), 0.0, 0.0)
        for interval in range(12):
            for number in range(10):
                at = (interval + number / 10) * INTERVAL_S
                judge.observe(Seen("", STABLE, 1, at, seconds_per_token=0.02))
                reason = "INTERNAL" if number < share_failed * 10 else "ok"
                judge.observe(Seen("", CANARY, 2, at, reason, seconds_per_token=0.02))
        return judge.verdict()

    assert (verdict(0.0), verdict(0.3)) == ("promote", "abort")
