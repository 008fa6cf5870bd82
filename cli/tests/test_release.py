"""A release on a real mesh, as an SRE does it: started, its control plane killed, promoted, and back; answers go on."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir, await_condition

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small"
PATIENCE_S = 180

pytestmark = pytest.mark.long


class Mesh:
    """A running mesh and its command line."""

    def __init__(self, state: StateDir) -> None:
        self.state = state

    def serin(self, *arguments: str, code: int = 0) -> str:
        """Run a command; what it printed."""
        command = [sys.executable, "-m", "serin_cli", *arguments, "--state", str(self.state.root)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout or done.stderr

    def up(self) -> None:
        """Start it from its file."""
        file = str(self.state.root.parent / "serin.yaml")
        self.serin("up", "-f", file, "--port", "0", "--grpc-port", "0", "--detach")

    def rollout(self, rollout_id: str) -> dict:
        """A rollout as JSON."""
        return json.loads(self.serin("rollout", "get", rollout_id, "--json"))

    def ask(self, num: int, prefix: str) -> Counter:
        """So many sessions ask once; how many met which lane."""
        record, lanes = read_record(self.state), Counter()
        headers = {"authorization": f"Bearer {self.state.read_default_key()}"}
        with httpx.Client(base_url=record.openai_base_url, headers=headers, timeout=60, trust_env=False) as client:
            for number in range(num):
                body = {"model": "small", "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 4}
                answer = client.post("/chat/completions", json=body, headers={"x-session-id": f"{prefix}{number}"})
                assert answer.status_code == 200, answer.text
                lanes[answer.headers["serin-lane"]] += 1
        return lanes

    def kill_control(self) -> None:
        """SIGKILL the control plane, and wait until another process stands in its place."""
        (before,) = [row["pid"] for row in read_record(self.state).processes if row["name"] == "control"]
        os.kill(before, signal.SIGKILL)

        def is_back() -> bool:
            (row,) = [row for row in read_record(self.state).processes if row["name"] == "control"]
            return row["phase"] == "ready" and row["pid"] not in (None, before)

        assert await_condition(is_back, PATIENCE_S)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory):
    """The demo model's v1, and a worker of v2 beside it."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "serin.yaml").write_text(f"models:\n  small:\n    path: {MODELS / 'v1'}\n    precision: float32\n")
    running = Mesh(StateDir(folder / "state"))
    running.up()
    running.serin("add", "worker", "--model", "small", "--version", "v2", "--path", str(MODELS / "v2"))
    yield running
    running.serin("down")


def test_a_release_forth_and_back_over_the_death_of_its_control_plane(mesh):
    """Sessions split as the step says; neither the kill nor a stop of all loses anything; the rest moves everything."""
    asked = ("--model", "small", "--service", "worker", "--to", "v2", "--intent", "better", "--steps", "50%")
    first = mesh.serin("rollout", "start", *asked, "--manual").splitlines()[-1]
    assert first == "small-1"
    assert await_condition(lambda: mesh.rollout(first)["weight"] == 50.0, PATIENCE_S, 0.5)
    split = mesh.ask(40, "a")
    found = mesh.rollout(first)
    assert set(split) == {found["stable_lane"], found["canary_lane"]}
    assert await_condition(lambda: mesh.rollout(first)["exposure"]["requests"] > 0, PATIENCE_S, 0.5)
    mesh.kill_control()
    after = mesh.rollout(first)
    assert (after["state"], after["weight"], after["stable_lane"]) == ("running", 50.0, found["stable_lane"])
    assert set(mesh.ask(20, "a")) <= set(split)
    mesh.serin("down")
    mesh.up()
    assert await_condition(lambda: mesh.rollout(first)["reason"] != after["reason"], PATIENCE_S, 0.5)
    again = mesh.rollout(first)
    assert (again["state"], again["weight"], again["canary_lane"]) == ("running", 50.0, found["canary_lane"])
    assert await_condition(lambda: set(mesh.ask(20, "d")) == set(split), PATIENCE_S, 0.5)
    mesh.serin("rollout", "promote", first, "--reason", "looked at it")
    assert await_condition(lambda: set(mesh.ask(5, "b")) == {found["canary_lane"]}, PATIENCE_S, 0.2)
    assert mesh.serin("rollback", "--model", "small") == "all traffic of small is on v1\n"
    assert await_condition(lambda: set(mesh.ask(5, "c")) == {found["stable_lane"]}, PATIENCE_S, 0.2)
    acts = [act["what"] for act in json.loads(mesh.serin("rollout", "history", "--json"))]
    assert acts == ["rollback", "promote", "step", "start"]


def test_what_runs_no_more_cannot_be_gone_back_to(mesh):
    """The command that brings it back is printed; traffic stays."""
    mesh.serin("remove", "worker", "--model", "small", "--version", "v2", "--force")
    said = mesh.serin("rollback", "--model", "small", "--to", "v2", code=1)
    assert "`serin add worker --model small --version v2 --path" in said
    assert len(mesh.ask(5, "d")) == 1
