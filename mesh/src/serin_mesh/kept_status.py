"""Keeps the status of a call whose requests are still being written when it ends.

grpcio up to at least 1.85 replaces a status that has arrived by INTERNAL when a write fails because the call is over
(github.com/grpc/grpc issue 36066). A caller would then see INTERNAL instead of the reason that a service gave. This
stands between a grpc.aio call and its core, and goes once grpcio is repaired. Knows nothing about statuses' meaning.
"""

import asyncio
from typing import Any

STATUS_GRACE_S = 1.0
"""How long the real status may come after the failed write; it usually is there already."""


def keep_status(call: Any) -> None:
    """Make a failed write leave the call's own status alone. Does nothing where grpcio is built differently."""
    core = getattr(call, "_cython_call", None)
    if core is not None and hasattr(core, "set_internal_error"):
        call._cython_call = _Core(core)


class _Core:
    """A call's core whose failed writes wait for the status that made them fail."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.send_serialized_message = core.send_serialized_message
        self.receive_serialized_message = core.receive_serialized_message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, details: str) -> None:
        """A write failed: if no status comes to say why, it was an internal error after all."""
        core = self._core

        def give_up() -> None:
            if not core.done():
                core.set_internal_error(details)

        if not core.done():
            asyncio.get_running_loop().call_later(STATUS_GRACE_S, give_up)
