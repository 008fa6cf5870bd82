"""The control plane's benchmark runs to its end, in small, and no call fails while the control plane is away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.long
def test_a_small_run_of_the_bench(tmp_path: Path):
    """Every stream and caller reports every change; the restart costs no call."""
    out = tmp_path / "control.json"
    command = [sys.executable, str(HERE / "control.py"), "--streams", "10", "--callers", "2", "--rounds", "2"]
    subprocess.run([*command, "--out", str(out)], timeout=250, check=False)  # its code says how fast this machine was
    results = json.loads(out.read_text())
    assert {name: numbers["samples"] for name, numbers in results["seconds"].items()} == {
        "to a raw ADS stream": 20,
        "to a caller's first changed pick": 4,
        "to a caller's first answer after a rollback": 4,
    }
    assert len(results["failover_s"]) == 5
    assert results["restart"]["failed"] == 0
    assert results["restart"]["calls"] > 100
