"""Calls that never end by themselves (watches, announcements, health) are ended when a drain begins.

Without this a drain would wait its whole grace for them. Their callers reconnect elsewhere. Calls that carry work of
running requests are left alone: their services end them once that is done.
"""

import asyncio
from typing import Any

from serin_mesh.errors import MeshError, Reason
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.methods import carries_work


class Watches:
    """The watches that a server is serving."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._ending = False

    def layer(self, handle: Handle) -> Handle:
        """Serve watches so that they can be ended."""

        async def watched(rpc: Rpc) -> Any:
            if not rpc.is_open_ended or carries_work(rpc.method):
                return await handle(rpc)
            try:
                async with asyncio.timeout(0 if self._ending else None) as scope:
                    self._scopes.add(scope)
                    try:
                        return await handle(rpc)
                    finally:
                        self._scopes.discard(scope)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise MeshError(Reason.NOT_READY, "draining; reconnect to another instance") from None

        return watched

    def end(self) -> None:
        """End all watches, and those that still come."""
        self._ending = True
        now = asyncio.get_running_loop().time()
        for scope in tuple(self._scopes):
            if not scope.expired():
                scope.reschedule(now)
