"""What `serin explain` says of requests: gateways write down what became of one a moment after its answer."""

import asyncio

from harness.eventually import eventually
from harness.running_mesh import MeshFailed, RunningMesh

_NOT_YET = "failed: "


async def explained(mesh: RunningMesh, *arguments: str) -> str:
    """What it prints, as soon as the request is known."""

    async def ask() -> str:
        try:
            return await asyncio.to_thread(mesh.serin, "explain", *arguments)
        except MeshFailed as not_yet:
            return f"{_NOT_YET}{not_yet}"

    return await eventually(ask, lambda said: not said.startswith(_NOT_YET), "the record")
