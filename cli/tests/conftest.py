"""What the command's tests share: a state directory, a guard that kills what a test leaves, stand-in children."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serin_cli.local.board import Board
from serin_cli.local.fleet import Fleet
from serin_cli.local.guard import Guard
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.state_dir import StateDir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """A prepared state directory."""
    state = StateDir(tmp_path / "state")
    state.prepare()
    return state


@pytest.fixture
def guard(state: StateDir) -> Iterator[Guard]:
    """A guard with its sentinel, holding the directory's lock."""
    lock = state.lock()
    guard = Guard(lock)
    yield guard
    guard.close()
    os.close(lock)


@pytest.fixture
def hung() -> Iterator[str]:
    """Address of a process that hangs: connections are taken, nothing is answered, as of one that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def board() -> Board:
    """An empty board."""
    return Board()


@pytest.fixture
def fleet(board: Board, guard: Guard, state: StateDir) -> Fleet:
    """An empty fleet that writes its logs to the state directory."""
    return Fleet(board, guard, state.logs)


@pytest.fixture
def child() -> Callable[..., ProcessSpec]:
    """Makes stand-ins for services: short Python programs."""

    def make(name: str, code: str, tier: Tier = Tier.WORKER, grace_s: float = 10.0) -> ProcessSpec:
        return ProcessSpec(name, tier, (sys.executable, "-u", "-S", "-c", code), grace_s=grace_s)

    return make
