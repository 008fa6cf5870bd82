"""What the attacks of a file share: one event loop, open clients, and somebody who asks meanwhile."""

from collections.abc import AsyncIterator

import pytest_asyncio
from harness.keys import mint
from harness.running_mesh import RunningMesh
from security.bystander import Bystander
from security.senders import Senders
from serin_gateway.keys import Role


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def viewer_key(mesh: RunningMesh) -> str:
    """A key that may read metrics."""
    return (await mint(mesh, role=Role.VIEWER))[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def senders(mesh: RunningMesh) -> AsyncIterator[Senders]:
    """Open clients with the mesh's own key."""
    async with Senders.open(mesh.rest, mesh.grpc, mesh.key) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bystander(mesh: RunningMesh) -> AsyncIterator[Bystander]:
    """Asks while tests of the file run."""
    async with Bystander.asking(mesh.rest, mesh.key) as asking:
        yield asking
