"""What the tests of this room share: a clock that is moved by hand, and instances in one line."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


class HandClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands until it is moved."""
    return HandClock()


@pytest.fixture
async def valkey(tmp_path):
    """A running Valkey that keeps what it is told."""
    from control_valkey import Valkey

    server = await Valkey(tmp_path).start()
    yield server
    await server.stop()


@pytest.fixture
def tls_dirs(tmp_path):
    """Certificates of services, all of one authority; a folder for each that is asked for."""
    from serin_mesh.authority import Authority

    authority = Authority.create()

    def folder(service: str) -> Path:
        where = tmp_path / "certs" / service
        if not where.exists():
            folder.renew(service)
        return where

    folder.renew = lambda service: authority.issue(
        service, tmp_path / "certs" / service, models=["small"], hosts=["127.0.0.1"]
    )
    return folder
