"""A release rehearsed on one machine: a model pushed, a version beside the declared one, taken away again."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir, await_condition
from serin_cli.testing import run

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small"
START_S, CHANGE_S = 280, 60
DECLARED = "worker.small.v1.0"
ADDED = "worker.small.v2.0"


def serin(state: StateDir, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on a state directory."""
    return run(*arguments, "--state", str(state.root))


def typed_up(state: StateDir, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Start the mesh as a shell does; what it prints."""
    flags = ["--port", "0", "--grpc-port", "0", "--detach", "--state", str(state.root)]
    command = [sys.executable, "-m", "serin_cli", "up", *arguments, *flags]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=START_S)


def version(name: str, service: str = "worker") -> list[str]:
    """A version as arguments."""
    return [service, "--model", "small", "--version", name]


def rows(state: StateDir) -> dict[str, dict[str, object]]:
    """The processes as last recorded."""
    return {row["name"]: row for row in read_record(state).processes}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """A mesh that declares one version, pushed as `small:v1`; `small:v2` is pushed too."""
    folder = tmp_path_factory.mktemp("rehearsal")
    state = StateDir(folder / "state")
    for name in ("v1", "v2"):
        done = serin(state, "model", "push", "small", name, str(MODELS / name))
        assert done.returncode == 0, done.stderr
    (folder / "serin.yaml").write_text(
        "models:\n  small:\n    numerics: invariant\n    precision: float32\n    path: registry:small:v1\n"
    )
    up(state)
    yield state
    assert serin(state, "down").returncode == 0


def up(state: StateDir) -> None:
    """Start the mesh from its file."""
    file = str(state.root.parent / "serin.yaml")
    done = typed_up(state, "-f", file)
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_version_comes_and_goes_beside_the_declared_one(running):
    """A worker of v2 stands beside tokenizer and worker of v1, which are untouched, and goes as it came."""
    before = {name: row["pid"] for name, row in rows(running).items()}
    done = serin(running, "add", *version("v2"))
    assert done.returncode == 0, done.stderr
    away = running.command(f"serin remove {' '.join(version('v2'))}")
    assert done.stdout == f"worker v2 of small is ready ({ADDED}); `{away}` takes it away\n"
    after = rows(running)
    assert after[ADDED]["phase"] == "ready"
    assert {name: after[name]["pid"] for name in before} == before
    assert "tokenizer.small.v2.0" not in after
    again = serin(running, "add", *version("v2"))
    assert (again.returncode, rows(running)[ADDED]["pid"]) == (0, after[ADDED]["pid"])
    done = serin(running, "remove", *version("v2"))
    assert done.returncode == 0, done.stderr
    assert ADDED not in rows(running)
    assert serin(running, "remove", *version("v2")).returncode == 2


def test_what_carries_traffic_stays(running):
    """The declared worker has all sessions: taking it away is refused with that reason."""
    done = serin(running, "remove", *version("v1"))
    assert (done.returncode, done.stdout) == (1, "")
    said = (
        "worker v1 of small carries 100.00% of the new sessions of small; a rollout moves them, or --force removes it"
    )
    assert done.stderr == f"{said} nevertheless\n"
    assert rows(running)[DECLARED]["phase"] == "ready"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_carries_traffic_goes_by_force(running):
    """The declared worker has all sessions: it goes only by force, and comes back as it was declared."""
    assert serin(running, "remove", *version("v1"), "--force").returncode == 0
    assert DECLARED not in rows(running)
    assert rows(running)["tokenizer.small.v1.0"]["phase"] == "ready"
    refused = serin(running, "add", *version("v1"), "--workers", "2")
    assert (refused.returncode, "comes back as it is declared" in refused.stderr) == (2, True)
    back = serin(running, "add", *version("v1"), "--path", "registry:small:v1")  # as `serin rollback` says it
    assert (back.returncode, back.stderr) == (0, "")
    assert rows(running)[DECLARED]["phase"] == "ready"


def test_further_versions_of_cache_and_gateway_announce_themselves(running):
    """N and N-1 of a service that serves all models run side by side, under their own version."""
    for service in ("cache", "gateway"):
        done = serin(running, "add", service, "--version", "v2")
        assert done.returncode == 0, done.stderr
        assert rows(running)[f"{service}.v2.0"]["phase"] == "ready"
    assert rows(running)["gateway.v2.0"]["address"] != rows(running)["gateway"]["address"]
    for service in ("cache", "gateway"):
        assert serin(running, "remove", service, "--version", "v2").returncode == 0
        assert f"{service}.v2.0" not in rows(running)
    refused = serin(running, "remove", "gateway", "--version", "v1")
    assert (refused.returncode, "the declared one stays" in refused.stderr) == (2, True)


def test_a_version_that_crashes_harms_nobody(running, tmp_path):
    """What crashes at start is said with its reason; the mesh serves on, and the version can be taken away."""
    (tmp_path / "serin_worker").mkdir()
    (tmp_path / "serin_worker" / "__main__.py").write_text('raise SystemExit("this build is broken")')
    (tmp_path / "serin_worker" / "__init__.py").write_text("")
    done = serin(running, "add", *version("v3"), "--code", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("worker.small.v3.0 crashed: this build is broken; it is tried again; see `serin logs")
    assert rows(running)[DECLARED]["phase"] == "ready"
    assert serin(running, "remove", *version("v3")).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["add", *version("v7")], "serin add: --path: not set: accepted: a model folder, a hub id or registry:NAME:"),
        (["add", *version("v7"), "--path", "registry:small:v7"], "serin add: --path: 'registry:small:v7': not in the"),
        (["add", *version("v7"), "--set", "speed=9"], "serin add: --set: 'speed=9': accepted: KEY=VALUE, where KEY is"),
        (
            ["add", *version("v7"), "--set", "threads=many"],
            "serin add: --set: 'threads=many': accepted: what serin.yaml",
        ),
        (["add", *version("v7"), "--code", "/nope"], "serin add: --code: '/nope': accepted: a virtual environment, or"),
        (["add", *version("v1")], "serin add: --version: 'v1': accepted: a version that is not there"),
        (["add", "worker", "--model", "big", "--version", "v1"], "serin add: --model: 'big': accepted: small"),
        (["add", "cache", "--version", "v1"], "serin add: --version: 'v1': accepted: a version that is not there"),
        (["remove", *version("v7")], "serin remove: --version: 'v7': accepted: v1"),
        (["remove", "cache", "--version", "v7"], "serin remove: --version: 'v7': accepted: one that was added"),
    ],
)
def test_a_wrong_version_is_one_line(running, arguments, line):
    """Nothing is added or taken away, and what would be accepted is said."""
    before = rows(running).keys()
    done = serin(running, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert rows(running).keys() == before


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_changed_file_of_a_pushed_version_is_refused(running):
    """Neither `add` nor `up` serves a version whose file was changed in the registry; the file is named."""
    file = running.models / "folders" / "small" / "v2" / "config.json"
    original = file.read_bytes()
    file.chmod(0o644)
    try:
        file.write_bytes(original + b"\n")
        done = serin(running, "add", *version("v2"))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{file} was changed after it was pushed" in done.stderr
        assert serin(running, "model", "show", "small:v2").returncode == 1
        file.write_bytes(original)
        assert serin(running, "add", *version("v2")).returncode == 0
        assert serin(running, "down").returncode == 0
        file.write_bytes(original + b"\n")
        done = typed_up(running)
        assert done.returncode == 1
        assert f"{file} was changed after it was pushed" in done.stderr
        remedy = running.command(f"serin remove {' '.join(version('v2'))}")
        assert f"`{remedy}` takes it away" in done.stderr
    finally:
        file.write_bytes(original)
    assert serin(running, "remove", *version("v2")).returncode == 0
    up(running)
    assert ADDED not in rows(running)


def test_the_registry_is_shown(running):
    """Versions are listed and shown, for people and for programs."""
    assert "registry:small:v1" in serin(running, "model", "show", "small:v1").stdout
    listed = json.loads(serin(running, "model", "list", "--json").stdout)
    assert [(row["name"], row["version"]) for row in listed] == [("small", "v1"), ("small", "v2")]
    assert "small  v1" in serin(running, "model", "list").stdout
    taken = serin(running, "model", "push", "small", "v1", str(MODELS / "v2"))
    assert taken.returncode == 1
    assert "small:v1 is there already and holds other content" in taken.stderr
    same = serin(running, "model", "push", "small", "v1", str(MODELS / "v1"))
    assert (same.returncode, "nothing changes" in same.stdout) == (0, True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_whole_release_and_the_way_back(running):
    """A worker is added, moved to, and the old one removed; what `serin rollback` then prints brings it back."""
    assert serin(running, "add", *version("v2")).returncode == 0
    asked = ["--model", "small", "--service", "worker", "--to", "v2", "--intent", "better", "--manual"]
    started = serin(running, "rollout", "start", *asked)
    assert started.returncode == 0, started.stderr
    rollout = started.stdout.splitlines()[-1]
    for name in ("v1", "v2"):
        refused = serin(running, "remove", *version(name))
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"worker {name} of small is one side of rollout {rollout}; ")
    assert await_condition(lambda: serin(running, "rollout", "promote", rollout).returncode == 0, CHANGE_S)
    refused = serin(running, "remove", *version("v2"))
    assert (refused.returncode, "carries 99.99% of the new sessions" in refused.stderr) == (1, True)
    gone = serin(running, "remove", *version("v1"))
    assert (gone.returncode, "kept for a rollback" in gone.stdout) == (0, True)
    refused = serin(running, "rollback", "--model", "small")
    assert refused.returncode != 0
    (command,) = re.findall(r"`serin (add worker [^`]+)`", refused.stderr)
    back = serin(running, *command.split())
    assert back.returncode == 0, back.stderr
    assert serin(running, "rollback", "--model", "small", "--to", "v1").returncode == 0
    assert serin(running, "remove", *version("v2"), "--force").returncode == 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_additions_outlive_the_mesh(running):
    """They come back with the next `serin up`, also with its file, and also after SIGKILL."""
    assert serin(running, "add", *version("v1-two-threads"), "--set", "threads=2").returncode == 0
    assert serin(running, "down").returncode == 0
    up(running)
    assert rows(running)["worker.small.v1-two-threads.0"]["phase"] == "ready"
    os.kill(read_record(running).pid, signal.SIGKILL)
    assert await_condition(lambda: not running.is_held(), 20)
    up(running)
    assert rows(running)["worker.small.v1-two-threads.0"]["phase"] == "ready"
    assert serin(running, "remove", *version("v1-two-threads")).returncode == 0
