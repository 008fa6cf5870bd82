"""Every program explains itself, and refuses what it does not understand in one line."""

import subprocess
import sys

import pytest
from harness.distributions import SERVICES

MODULES = [f"serin_{room.replace('-', '_')}" for room in SERVICES]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of ours to its end."""
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", [*MODULES, "serin_cli", "serin_mesh.health"])
def test_help_is_there(module: str):
    """`--help` prints usage on stdout and ends with 0."""
    done = run(module, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert done.stderr == ""


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], ["--port", "70000", "65535"]),
        (["--host", "0.0.0.0"], ["0.0.0.0", "tls"]),
    ],
    ids=["out of range", "off loopback without TLS"],
)
def test_a_bad_setting_is_one_line(module: str, arguments: list[str], words: list[str]):
    """Key, value and what is accepted, exit code 2; nothing starts."""
    done = run(module, *arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines
