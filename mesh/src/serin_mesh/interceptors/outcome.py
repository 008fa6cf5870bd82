"""How a call ended: everything that escapes a handler becomes a MeshError here, and is noted for the layers outside.

A MeshError stays as it is, also one that a further service sent. Anything foreign is a fault of ours: it is logged
with its place, and the caller learns that it happened, not what was in it.
"""

import asyncio
from typing import Any

import grpc

from serin_mesh import logs
from serin_mesh.errors import STATUS, MeshError, Reason, from_rpc_error
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc


def note_outcome(handle: Handle) -> Handle:
    """Translate failures, and write code and reason on the call."""

    async def noted(rpc: Rpc) -> Any:
        try:
            return await handle(rpc)
        except asyncio.CancelledError:
            _note(rpc, Reason.DEADLINE_EXCEEDED if _is_late(rpc) else Reason.CANCELLED)
            raise
        except grpc.aio.AbortError:  # the handler has sent its status itself
            code: Any = rpc.context.code()
            rpc.code = code if isinstance(code, grpc.StatusCode) else _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
            raise
        except MeshError as error:
            _note(rpc, error.reason)
            raise
        except Exception as error:
            # Not kept in a name: its traceback would hold this frame, and with it the request.
            raise _noted(rpc, failure_of(rpc, error)) from error

    return noted


def failure_of(rpc: Rpc, error: Exception) -> MeshError:
    """What the caller is told of a foreign failure; a fault of ours is logged with its place."""
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    if isinstance(error, grpc.aio.InternalError):  # a write to, or a read from, a caller that is no longer there
        gone = Reason.DEADLINE_EXCEEDED if _is_late(rpc) else Reason.CANCELLED
        return MeshError(gone, "the caller went away in the middle of the call")
    if isinstance(error, NotImplementedError):
        return MeshError(Reason.NOT_IMPLEMENTED, f"{rpc.method[1:]} is not implemented by this service")
    logs.get().error("rpc.crashed", method=rpc.method[1:], exc_info=error)
    return MeshError(Reason.INTERNAL, f"internal error; the log has its place under request id {rpc.served.request_id}")


def _note(rpc: Rpc, reason: Reason) -> None:
    rpc.code, rpc.reason = STATUS[reason].grpc, reason


def _noted(rpc: Rpc, failure: MeshError) -> MeshError:
    _note(rpc, failure.reason)
    return failure


def _is_late(rpc: Rpc) -> bool:
    deadline = rpc.served.deadline
    return deadline is not None and asyncio.get_running_loop().time() >= deadline


_BY_NUMBER: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
