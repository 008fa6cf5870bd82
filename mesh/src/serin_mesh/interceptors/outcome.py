"""Notes how a call ended, for the layers outside that tell others."""

import asyncio
from typing import Any

import grpc

from serin_mesh.errors import MeshError, Reason, from_rpc_error
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc


def note_outcome(handle: Handle) -> Handle:
    """Write code and reason of a failure on the call."""

    async def noted(rpc: Rpc) -> Any:
        try:
            return await handle(rpc)
        except BaseException as error:
            rpc.code, rpc.reason = _outcome(rpc, error)
            raise

    return noted


def _outcome(rpc: Rpc, error: BaseException) -> tuple[grpc.StatusCode, Reason | None]:
    if isinstance(error, asyncio.CancelledError):
        deadline = rpc.served.deadline
        late = deadline is not None and asyncio.get_running_loop().time() >= deadline
        reason = Reason.DEADLINE_EXCEEDED if late else Reason.CANCELLED
        return MeshError(reason, "").status.grpc, reason
    if isinstance(error, grpc.aio.AbortError):
        code = rpc.context.code()
        return (code if isinstance(code, grpc.StatusCode) else _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)), None
    if isinstance(error, grpc.RpcError):
        error = from_rpc_error(error)
    reason = error.reason if isinstance(error, MeshError) else Reason.INTERNAL
    return MeshError(reason, "").status.grpc, reason


_BY_NUMBER: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
