"""A real Valkey, and the mesh secret's file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cache_valkey import ValkeyProcess


@pytest.fixture
async def valkey(tmp_path):
    """A running Valkey; gone afterwards, whatever the test did to it."""
    process = ValkeyProcess(tmp_path)
    await process.start()
    yield process
    await process.kill()
