"""The benchmark of serving quality runs and reports what it promises; its figures are judged by people."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("serving.py")


@pytest.mark.long
def test_the_benchmark_reports_every_figure(tiny_model: Path, tmp_path: Path):
    """All parts at small sizes over the tiny model: each promise with its goal, hits exact, every token arrives."""
    out = tmp_path / "serving.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--model", str(tiny_model), "--tiny", "--precision", "bf16", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    results = json.loads(out.read_text(encoding="utf-8"))
    assert set(results) == {"machine", "waits", "numerics", "context", "start", "streams"}
    waits = results["waits"]
    assert set(waits) == {"stall", "fairness", "prefix"}
    _, hits = waits["prefix"]["promises"]
    assert hits["is_met"]
    parts = [*waits.values(), results["context"], results["start"], results["streams"]]
    promises = [promise for part in parts for promise in part["promises"]]
    assert len(promises) == 9
    assert all(math.isfinite(promise["figure"]) for promise in promises)
    assert set(results["numerics"]["bf16"]) == {"prefill", "decode 1", "decode 4", "decode 16"}
    assert set(results["start"]["stages"]) == {"hashing", "loading", "preparing", "checking"}
    assert "met" in done.stdout
