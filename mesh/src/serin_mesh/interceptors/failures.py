"""Outermost layer: what a handler raises becomes a gRPC status, once.

A MeshError is sent as it is. Anything else is a fault of ours: it is logged with its place, and the caller learns
that it happened, not what was in it.
"""

from typing import Any

import grpc

from serin_mesh import logs
from serin_mesh.errors import MeshError, Reason, from_rpc_error, to_status
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc


def translate_failures(handle: Handle) -> Handle:
    """Turn exceptions into statuses."""

    async def translated(rpc: Rpc) -> Any:
        try:
            return await handle(rpc)
        except MeshError as error:
            failure = error
        except grpc.aio.AbortError:
            raise  # the handler has sent its status itself
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
        except Exception as error:  # noqa: BLE001 - whatever escapes a handler is answered here
            logs.get().error("rpc.crashed", method=rpc.method[1:], exc_info=error)
            failure = MeshError(
                Reason.INTERNAL, f"internal error; the log has its place under request id {rpc.served.request_id}"
            )
        await rpc.context.abort_with_status(to_status(failure))
        raise AssertionError("abort_with_status always raises")

    return translated
