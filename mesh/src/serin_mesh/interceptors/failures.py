"""Outermost layer: a MeshError becomes a gRPC status with one ErrorInfo, before the first message or after many."""

from typing import Any

from serin_mesh.errors import MeshError, to_status
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc


def send_failures(handle: Handle) -> Handle:
    """End a failed call with its status."""

    async def sent(rpc: Rpc) -> Any:
        try:
            return await handle(rpc)
        except MeshError as error:
            failure = error
        await rpc.context.abort_with_status(to_status(failure))
        raise AssertionError("abort_with_status always raises")

    return sent
