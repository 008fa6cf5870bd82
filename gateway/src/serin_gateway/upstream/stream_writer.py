"""The sending side of a call that many share: one message after the other, each made when it can go.

Knows nothing about what messages hold.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from serin_mesh.errors import MeshError


async def write_on(
    call: Any, woken: asyncio.Event, take: Callable[[], Any], written: Callable[[], None] = lambda: None
) -> None:
    """Write for as long as the call takes messages; why it takes no more, whoever reads from it learns.

    Args:
        call: where they go.
        woken: set when there may be something to say.
        take: the next message, with all that waits for it; None: there is nothing to say.
        written: told after each message that it has gone.
    """
    try:
        while True:
            woken.clear()
            while (message := take()) is not None:
                await call.write(message)
                written()
            await woken.wait()
    except (MeshError, asyncio.InvalidStateError):
        pass  # the reader learns why
