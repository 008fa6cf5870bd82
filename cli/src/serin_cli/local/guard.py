"""The supervisor's side of the sentinel: tells it which process groups live.

Knows nothing about what the processes are.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from serin_cli.local import leash, sentinel


class Guard:
    """Makes sure that no process group outlives this process."""

    def __init__(self, lock: int) -> None:
        """Start the sentinel; ``lock`` is the file descriptor it keeps open to its own end."""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(sentinel.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
            text=True,
        )

    @staticmethod
    def leashed(command: list[str]) -> list[str]:
        """The command line that runs ``command`` so that it dies with this process."""
        return [sys.executable, "-S", "-E", str(Path(leash.__file__)), str(os.getpid()), *command]

    def watch(self, group: int) -> None:
        """Have the group killed if this process dies."""
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Kill what is left of the group and forget it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the sentinel; groups still watched are killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the sentinel was killed; the leashes still hold
            self._process.stdin.write(line)
            self._process.stdin.flush()
