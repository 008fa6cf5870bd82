"""Lets calls in: only to a service that is ready, and only with a deadline.

Infrastructure is answered always. Calls that live as long as their parties do need no deadline.
"""

import asyncio
from typing import Any

from serin_mesh.errors import MeshError, Reason
from serin_mesh.interceptors.onion import Handle, Layer
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.readiness import Readiness


def require_readiness(readiness: Readiness) -> Layer:
    """Refuse calls while the service starts or stalls; while it drains, those that still arrive are served."""

    def layer(handle: Handle) -> Handle:
        async def admitted(rpc: Rpc) -> Any:
            now = readiness.condition
            if not now.can_serve and not rpc.is_infrastructure:
                doing = f"{now.activity}, {now.progress:.0%}" if 0 < now.progress < 1 else now.activity
                raise MeshError(Reason.NOT_READY, f"not ready: {doing}; try again soon", retry_after_s="1")
            return await handle(rpc)

        return admitted

    return layer


def require_deadline(default_s: float | None) -> Layer:
    """Refuse calls without a deadline, or give them ``default_s`` seconds."""

    def layer(handle: Handle) -> Handle:
        async def bounded(rpc: Rpc) -> Any:
            left_s = rpc.context.time_remaining()
            if left_s is not None:
                rpc.served.deadline = asyncio.get_running_loop().time() + left_s
                return await handle(rpc)
            if rpc.is_open_ended:
                return await handle(rpc)
            if default_s is None:
                raise MeshError(Reason.DEADLINE_MISSING, "the call has no deadline; set a timeout on it")
            rpc.served.deadline = asyncio.get_running_loop().time() + default_s
            try:
                async with asyncio.timeout(default_s) as limit:
                    return await handle(rpc)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise MeshError(Reason.DEADLINE_EXCEEDED, f"not finished within {default_s:g} s") from None

        return bounded

    return layer
