"""Tells each caller the lane that served it, so that its next call can meet the same one."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from serin_mesh.call import LANE_KEY
from serin_mesh.interceptors.onion import Handle, Layer
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.lane_memory import begin_conversation


def echo_lane(own_lanes: Callable[[], Mapping[str, int]]) -> Layer:
    """Send ``serin-lane`` as initial metadata.

    It is the lane that the caller asked for. Where it named none, or one that this instance is no member of, it is
    drawn by weight among this instance's own lanes; nothing is sent where none is known.
    """

    def layer(handle: Handle) -> Handle:
        async def echoed(rpc: Rpc) -> Any:
            begin_conversation()
            if not rpc.is_infrastructure:
                own = own_lanes()
                if own and rpc.served.lane not in own:
                    rpc.served.lane = draw_lane(own)
                if rpc.served.lane:
                    await rpc.context.send_initial_metadata(((LANE_KEY, rpc.served.lane),))
            return await handle(rpc)

        return echoed

    return layer


def draw_lane(lanes: Mapping[str, int]) -> str:
    """One of some lanes by weight; where none has any, the first.

    An instance that several lanes share (a tokenizer, while two versions of a worker are compared) gets the calls of
    all of them. The next call of a caller that named no lane follows the one drawn here, so that callers who begin at
    this instance split as those who were given a lane do.
    """
    if not any(lanes.values()):
        return next(iter(lanes))
    return random.choices(list(lanes), weights=list(lanes.values()))[0]
