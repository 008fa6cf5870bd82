"""The benchmark of the mesh runs and reports what it promises; its figures are judged by people, on quiet machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mesh.py")


@pytest.mark.long
def test_the_benchmark_reports_every_figure(tiny_model: Path, tmp_path: Path):
    """A small run over the tiny model: each door's rate, what limits it, each process's costs, the first token."""
    out = tmp_path / "mesh.json"
    flags = ("--twin-streams", "8", "--twin-tokens", "60", "--streams", "2", "--rounds", "1", "--out", str(out))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--model", str(tiny_model), *flags], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr + done.stdout
    results = json.loads(out.read_text(encoding="utf-8"))
    doors = results["twin"]["doors"]
    assert set(doors) == {"twin, asked directly", "gateway, gRPC", "gateway, REST"}
    for door in doors.values():
        assert door["tokens_per_s"] > 0
        assert door["limit"]
        assert {"gateway", "control", "cache", "twin", "client"} <= set(door["cpu_s"])
    assert all(cost["rss_mib"] > 0 for cost in results["twin"]["idle"].values())
    assert set(results["engine"]["throughput"]["kept"]) == {"grpc", "rest"}
    assert set(results["engine"]["first_token"]["added_ms"]) == {"grpc", "rest"}
    assert "tokens/s" in done.stdout
