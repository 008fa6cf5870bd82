"""One expensive thing for all test processes of a run: the first that needs it makes it, the last one out ends it.

Knows file locks, which end with the process that holds them however it dies; nothing about what is shared.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

POLL_S = 0.1
TIMEOUT_S = 300.0


class NotShared(Exception):
    """The process that was to make the thing failed, or took too long."""


@contextlib.contextmanager
def shared(folder: Path, thing: AbstractContextManager[object]) -> Iterator[None]:
    """Hold the thing that all processes share under ``folder``; entering ``thing`` makes it, leaving it ends it.

    Raises:
        NotShared: the process that makes it is not ready in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    with (folder / "maker").open("a") as maker, (folder / "users").open("a") as users:
        for _ in _patience("what another process makes here is not ready"):
            if _take(maker, fcntl.LOCK_EX):
                with thing:
                    ready.touch()
                    yield
                    ready.unlink()
                    _await_others(users)
                return
            if _join(users, ready):
                yield
                return


def _patience(problem: str) -> Iterator[None]:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_S)
    raise NotShared(f"{problem} after {TIMEOUT_S:.0f} s")


def _join(users: IO[str], ready: Path) -> bool:
    """Count as a user, unless the thing is not there or about to go."""
    if not ready.exists() or not _take(users, fcntl.LOCK_SH):
        return False
    if not ready.exists():
        fcntl.flock(users, fcntl.LOCK_UN)
        return False
    return True


def _await_others(users: IO[str]) -> None:
    for _ in _patience("another process still uses what this one made"):
        if _take(users, fcntl.LOCK_EX):
            return


def _take(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
