"""Tells each caller the lane that served it, so that its next call can meet the same one."""

from collections.abc import Callable, Sequence
from typing import Any

from serin_mesh.call import LANE_KEY
from serin_mesh.interceptors.onion import Handle, Layer
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.lane_memory import begin_conversation


def echo_lane(own_lanes: Callable[[], Sequence[str]]) -> Layer:
    """Send ``serin-lane`` as initial metadata.

    It is the lane that the caller asked for. Where it named none, or one that this instance is no member of, it is
    the heaviest of this instance's own lanes; nothing is sent where none is known.
    """

    def layer(handle: Handle) -> Handle:
        async def echoed(rpc: Rpc) -> Any:
            begin_conversation()
            if not rpc.is_infrastructure:
                own = own_lanes()
                if own and rpc.served.lane not in own:
                    rpc.served.lane = own[0]
                if rpc.served.lane:
                    await rpc.context.send_initial_metadata(((LANE_KEY, rpc.served.lane),))
            return await handle(rpc)

        return echoed

    return layer
