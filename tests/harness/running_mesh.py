"""A mesh of real processes, as `serin up` starts it: where it is, who is in it, how it is stopped.

Knows the command line and the record it writes (`mesh.json`), nothing about what is asked of the mesh.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serin_cli.testing import run

from harness.leash import leashed

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.05


class MeshFailed(Exception):
    """The mesh did not start or stop; the message holds what it printed last."""


@dataclass(frozen=True)
class Member:
    """One process of a mesh."""

    name: str
    pid: int
    phase: str


class RunningMesh:
    """A mesh on a state directory of its own. `start` returns when it is ready; `stop` drains it.

    Args:
        state: its state directory.
        declaration: text of its `serin.yaml`.
        flags: further flags of `serin up`.
        environment: added to its environment.
    """

    def __init__(
        self,
        state: Path,
        declaration: str,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state = state
        self._file = state.with_name(f"{state.name}.yaml")
        self._file.write_text(declaration, encoding="utf-8")
        self._log = state.with_name(f"{state.name}.log")
        self._flags = flags
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until every process of it is ready.

        Raises:
            MeshFailed: it ended, or was not ready in time.
        """
        up = [sys.executable, "-m", "serin_cli", "up", "--state", str(self.state)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                leashed([*up, "-f", str(self._file), "--port", "0", "--grpc-port", "0", *self._flags]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None:
                raise MeshFailed(f"serin up ended with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise MeshFailed(f"serin up was not ready within {START_TIMEOUT_S:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def stop(self) -> int:
        """Ask it to drain, wait for its end, return its exit code; kill what does not end."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise MeshFailed(f"serin up did not drain within {STOP_TIMEOUT_S:.0f} s:\n{self.tail()}") from error

    @property
    def record(self) -> dict[str, Any]:
        """What the mesh wrote about itself."""
        record: dict[str, Any] = json.loads((self.state / "mesh.json").read_text(encoding="utf-8"))
        return record

    @property
    def rest(self) -> str:
        """Base of the REST interface, ``http://host:port``."""
        return str(self.record["rest"])

    @property
    def grpc(self) -> str:
        """``host:port`` of the gateway's gRPC interface."""
        return str(self.record["grpc"])

    @property
    def control(self) -> str:
        """``host:port`` of the control plane."""
        return str(self.record["control"])

    @property
    def key(self) -> str:
        """The key that `serin env` hands out."""
        return (self.state / "default.key").read_text(encoding="utf-8").strip()

    def members(self) -> dict[str, Member]:
        """Its processes by name, as last recorded."""
        return {row["name"]: Member(row["name"], row["pid"], row["phase"]) for row in self.record["processes"]}

    def serin(self, *arguments: str) -> str:
        """Run another `serin` command on this mesh; returns what it prints.

        Raises:
            MeshFailed: it ended with another code than 0.
        """
        done = run(*arguments, "--state", str(self.state))
        if done.returncode != 0:
            raise MeshFailed(f"serin {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def tail(self, num_lines: int = 40) -> str:
        """The last lines of what `serin up` and its processes logged."""
        logs = [self._log, *sorted((self.state / "logs").glob("*.log"))]
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:]) for log in logs
        )

    def _is_ready(self) -> bool:
        try:
            return self.record["phase"] == "ready"
        except (FileNotFoundError, json.JSONDecodeError):
            return False
