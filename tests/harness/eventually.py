"""Waits for what nothing announces: asks again and again until the answer is accepted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


async def eventually(
    ask: Callable[[], Awaitable[T]], accept: Callable[[T], object], what: str, timeout_s: float = 60.0
) -> T:
    """The first answer that is accepted.

    Raises:
        AssertionError: none was within ``timeout_s``; the message holds the last one.
    """
    answer: T | str = "nothing"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await ask()
                if accept(answer):
                    return answer
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {timeout_s:.0f} s; last: {answer!r:.2000}") from None
