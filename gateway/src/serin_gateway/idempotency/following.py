"""The frames of an answer that another gateway makes, or that is kept.

What a gateway has left that may be dead is not shown: frames are held until their maker gives a sign of life. Knows
nothing about what a frame is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from serin_mesh.errors import MeshError, Reason

from serin_gateway.idempotency.store import MAX_KEPT_BYTES, Found, State

LOOK_FIRST_S, LOOK_AT_MOST_S = 0.05, 0.5
"""How often an answer that another gateway makes is looked at."""
NUM_QUICK_LOOKS = 10
"""So often at first, and after each frame: a maker that makes something posts it meanwhile."""


async def followed(read: Callable[[int], Awaitable[Found]], owner: str) -> AsyncIterator[bytes]:
    """Frames as they come; none if the answer is gone before its maker gave a sign of life: it is to be made anew.

    Args:
        read: what the store has behind so many frames.
        owner: whose answer it is; what somebody else makes under the name later is another one.

    Raises:
        MeshError: IDEMPOTENCY_CONFLICT, it is not kept; UPSTREAM_UNAVAILABLE, it is gone, and some of it was shown.
    """
    num_read, num_looks, num_renewals, wait_s = 0, 0, -1, LOOK_FIRST_S
    held: list[bytes] = []
    has_shown = False
    while True:
        found = await read(num_read)
        if found.state is State.GONE or found.owner != owner:
            if not has_shown:
                return
            raise MeshError(
                Reason.UPSTREAM_UNAVAILABLE,
                "this answer has failed where it was made; ask again under the same Idempotency-Key",
            )
        if found.state is State.TOO_LONG:
            raise MeshError(
                Reason.IDEMPOTENCY_CONFLICT,
                f"the answer of this Idempotency-Key was delivered; it has over {MAX_KEPT_BYTES} bytes, so it is "
                "not kept",
            )
        if num_renewals < 0:
            num_renewals = found.num_renewals
        held += found.frames
        num_read += len(found.frames)
        # Frames come with renewals only, so those behind the sign of life are shown at once.
        if found.state is State.KEPT or found.num_renewals != num_renewals:
            for frame in held:
                has_shown = True
                yield frame
            held = []
        if found.state is State.KEPT:
            return
        num_looks = 0 if found.frames else num_looks + 1
        wait_s = LOOK_FIRST_S if num_looks < NUM_QUICK_LOOKS else min(2 * wait_s, LOOK_AT_MOST_S)
        await asyncio.sleep(wait_s)
