"""When this worker lets go of streams that another one should go on with: its engine is stuck, or its drain ends.

Knows nothing about how streams end, or who goes on with them.
"""

import asyncio
from collections.abc import Callable

from serin_mesh.readiness import Condition, State

from serin_worker.errors import DrainEnds, EngineStalled, HandedOver

MARGIN_S = 1.0
"""How long before the grace of a drain is over: the last tokens still travel in order."""


class Handover:
    """Follows the worker's condition.

    Args:
        hand_over: ends all streams with an error.
        stall_s: seconds after which the engine is called stuck; said in the error.
        drain_s: seconds from the start of a drain to the cancelling of what still runs.
    """

    def __init__(self, hand_over: Callable[[HandedOver], None], *, stall_s: float, drain_s: float) -> None:
        self._hand_over = hand_over
        self._stall_s = stall_s
        self._drain_s = drain_s
        self._is_draining = False

    def follow(self, condition: Condition) -> None:
        """Called with the condition now and after each change."""
        if condition.state is State.STALLED:
            self._hand_over(EngineStalled(self._stall_s))
        elif condition.state is State.DRAINING and not self._is_draining:
            self._is_draining = True
            left_s = max(0.0, self._drain_s - min(MARGIN_S, self._drain_s / 4))
            asyncio.get_running_loop().call_later(left_s, self._hand_over, DrainEnds())
