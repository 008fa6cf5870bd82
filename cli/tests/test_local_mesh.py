"""`serin up` and the commands around it, with every real process and the demo model."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from serin_cli.chat_client import AskError, ChatClient
from serin_cli.local.probe import ready_models
from serin_cli.record import MeshRecord, read_record
from serin_cli.state_dir import StateDir, await_condition
from serin_cli.testing import run

QUESTION = "What is the capital of France?"
START_S, CHANGE_S = 120, 60
PROCESSES = ["state-redis", "cache-redis", "control", "cache", "gateway", "tokenizer.small.v2.0", "worker.small.v2.0"]


def serin(state: StateDir, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on a state directory."""
    return run(*arguments, "--state", str(state.root))


def typed(state: StateDir, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The same as a shell runs it: a process of its own."""
    command = [sys.executable, "-m", "serin_cli", *arguments, "--state", str(state.root)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=START_S)


def up(state: StateDir) -> None:
    """Start a mesh and wait until it is ready."""
    done = typed(state, "up", "--port", "0", "--grpc-port", "0", "--detach")
    assert done.returncode == 0, done.stderr + done.stdout
    for command in ("env", "chat", "status", "logs -f", "down"):
        assert f"serin {command} --state {state.root}" in done.stdout, "what it says to type means this mesh"


def ask(record: MeshRecord, key: str, question: str = QUESTION) -> str:
    """One answer of the demo model."""
    with ChatClient(record.openai_base_url, key) as client:
        return "".join(client.stream("small", [{"role": "user", "content": question}], temperature=0, max_tokens=64))


def rows(state: StateDir) -> dict[str, dict[str, object]]:
    """The processes as last recorded."""
    return {row["name"]: row for row in read_record(state).processes}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """A state directory with a mesh on it."""
    state = StateDir(tmp_path_factory.mktemp("mesh") / "state")
    up(state)
    yield state
    os.kill(read_record(state).pid, signal.SIGTERM)
    done = typed(state, "down")  # a second SIGTERM: still one drain
    assert done.returncode == 0, done.stderr
    assert not state.is_held()


def test_everything_is_ready_and_answers(running):
    """Every process is ready, and the demo model knows the capital of France."""
    done = serin(running, "status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["name"]: row["phase"] for row in status["processes"]} == dict.fromkeys(PROCESSES, "ready")
    assert all(row["memory_bytes"] > 0 for row in status["processes"])
    assert "Paris" in ask(read_record(running), running.read_default_key())
    assert "worker.small.v2.0" in serin(running, "status").stdout


def test_the_gateway_is_asked_which_models_it_serves(running):
    """With a key that it knows; else it says of none."""
    port = int(read_record(running).rest.rpartition(":")[2])
    assert ready_models(port, running.read_default_key()) == {"small"}
    assert ready_models(port, "sk-serin-unknown") == frozenset()


def test_chat_asks_once(running):
    """`serin chat question` prints the answer alone."""
    done = typed(running, "chat", QUESTION, "--temperature", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


def test_a_second_mesh_here_is_refused(running):
    """The directory is taken, and a port that is taken is refused in another directory; one line each."""
    done = typed(running, "up", "--port", "0", "--grpc-port", "0")
    assert done.returncode == 1
    assert re.fullmatch(r"another mesh already runs on .*; stop it with `serin down --state .*`.*\n", done.stderr)
    log = (running.logs / "up.log").read_bytes()
    done = typed(running, "up", "--port", "0", "--grpc-port", "0", "--detach")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("another mesh already runs on ")
    assert (running.logs / "up.log").read_bytes() == log
    port = read_record(running).rest.rpartition(":")[2]
    done = typed(StateDir(running.root / "other"), "up", "--port", port, "--grpc-port", "0")
    assert done.returncode == 1
    assert re.fullmatch(rf"--port: port {port} is in use by .*; choose another, or --port 0 .*\n", done.stderr)


def test_keys_are_made_listed_and_revoked(running):
    """A new key works until it is revoked; it is shown once and never listed."""
    key = serin(running, "key", "create", "--role", "app", "--name", "[/b] laptop").stdout.strip()
    assert key.startswith("sk-serin-")
    assert "Paris" in ask(read_record(running), key)
    listed = serin(running, "key", "list").stdout
    assert key not in listed
    (key_id,) = re.findall(r"(key_\w+)\s+app\s+\[/b\] laptop", listed)
    names = {one["id"]: one["name"] for one in json.loads(serin(running, "key", "list", "--json").stdout)}
    assert names[key_id] == "[/b] laptop"
    assert serin(running, "key", "revoke", key_id).stdout == f"revoked {key_id} [/b] laptop\n"
    again = serin(running, "key", "revoke", key_id)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith(f"{key_id} [/b] laptop was revoked already, on 20")

    def is_refused() -> bool:
        try:
            ask(read_record(running), key)
        except AskError as error:
            return "refused (401" in str(error)
        return False

    assert await_condition(is_refused, CHANGE_S)  # every gateway knows within a second
    assert serin(running, "key", "revoke", "key_none").returncode == 2


@pytest.mark.parametrize("name", ["worker.small.v2.0", "gateway"])
def test_what_is_killed_comes_back(running, name):
    """A killed process is started again and seen ready, on new ports or on those it had; the mesh answers again."""
    pid = rows(running)[name]["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        row = rows(running)[name]
        return row["phase"] == "ready" and row["pid"] not in (None, pid)

    assert await_condition(is_back, CHANGE_S)
    assert rows(running)[name]["num_restarts"] == 1
    assert "Paris" in ask(read_record(running), running.read_default_key())


def test_a_configuration_is_applied_while_it_serves(running, tmp_path):
    """A second worker comes and goes by `config apply`, also with another precision; a bad file changes nothing."""
    file = tmp_path / "serin.yaml"
    text = _declared(workers=2)
    file.write_text(text.replace("workers: 2", "workers: two"))
    done = serin(running, "config", "apply", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{file}:3: models.small.workers: ")
    file.write_text(text)
    assert serin(running, "config", "diff", str(file)).returncode == 1
    done = serin(running, "config", "apply", str(file))
    assert done.returncode == 0, done.stderr
    assert "models.small.workers: 1 -> 2" in done.stdout
    assert serin(running, "config", "diff", str(file)).returncode == 0
    second = "worker.small.v2.1"
    first = rows(running)["worker.small.v2.0"]["pid"]
    assert await_condition(lambda: rows(running).get(second, {}).get("phase") == "ready", CHANGE_S)
    assert rows(running)["worker.small.v2.0"]["pid"] == first
    file.write_text(_declared(workers=1, precision="bfloat16"))  # it differs from the one that goes
    assert serin(running, "config", "apply", str(file)).returncode == 0
    assert await_condition(lambda: second not in rows(running), CHANGE_S)
    assert await_condition(lambda: rows(running)["worker.small.v2.0"]["phase"] == "ready", CHANGE_S)
    assert await_condition(lambda: read_record(running).alarms == [], CHANGE_S)
    assert "Paris" in ask(read_record(running), running.read_default_key())


def test_logs_are_kept_for_each_process(running):
    """Every process has a log, and no log holds a question or a key."""
    ask(read_record(running), running.read_default_key())
    for name in PROCESSES:
        assert serin(running, "logs", name).returncode == 0
    everything = "".join(path.read_text() for path in running.logs.iterdir())
    assert QUESTION not in everything
    assert running.read_default_key() not in everything


def test_nothing_outlives_a_killed_supervisor_but_keys(running):
    """SIGKILL of `serin up` takes every process along; a new mesh on the directory knows the old key."""
    key, record = running.read_default_key(), read_record(running)
    services = [psutil.Process(row["pid"]) for row in record.processes]
    family = [process for service in services for process in (service, *service.children(recursive=True))]
    os.kill(record.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    assert await_condition(lambda: not running.is_held(), 20)
    assert serin(running, "status").returncode == 1
    up(running)
    assert running.read_default_key() == key
    assert "Paris" in ask(read_record(running), key)


def _declared(workers: int, precision: str = "float32") -> str:
    folder = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
    return (
        f"models:\n  small:\n    workers: {workers}\n    numerics: invariant\n    precision: {precision}\n"
        f"    versions:\n      v2:\n        path: {folder}\n"
    )
