"""The benchmark of GPUs, tried on the CPU with a tiny model: its rows, its work, and what it says without a device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.long  # it imports torch, which costs more than it tests


def run(*flags: str) -> "subprocess.CompletedProcess[str]":
    """The script, to its end."""
    command = [sys.executable, str(HERE / "gpu.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_rows_are_measured(tmp_path: Path):
    """A line for the machine and one for each row, and the same in the file."""
    out = tmp_path / "gpu.json"
    done = run(
        "--device", "cpu", "--tiny", "--seconds", "3", "--only", "nano-0.6b", "ttft-8b-fp8", "--out", str(out)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["row"] for line in lines] == ["machine", "nano-0.6b", "ttft-8b-fp8"]
    assert lines[1]["tok_s"] > 0
    assert lines[2]["ttft_ms"] > 0
    assert lines[2]["decode_tok_s"] > 0
    assert lines[2]["of_roofline"] > 0
    assert [row["row"] for row in json.loads(out.read_text())["rows"]] == [line["row"] for line in lines]


def test_the_work_is_what_others_publish(monkeypatch: pytest.MonkeyPatch):
    """Tokens in and out of nano-vllm's benchmark."""
    monkeypatch.syspath_prepend(str(HERE))
    import gpu

    prompts, outputs = gpu.nano_requests()
    assert (sum(map(len, prompts)), sum(outputs)) == (142_827, 133_966)


def test_without_a_device_it_says_so():
    """One line, and what to do instead."""
    done = run("--device", "cuda")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no CUDA device" in done.stderr
