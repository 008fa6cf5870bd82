"""A call of the state Redis that ends in time, or fails as its store says. Knows nothing about what is asked."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from redis.exceptions import RedisError
from serin_mesh.cancellation import cancels_kept

T = TypeVar("T")


async def in_time(call: Awaitable[T], timeout_s: float, down: type[Exception]) -> T:
    """The call's result.

    Raises:
        Exception: ``down``, when Redis fails or takes longer.
    """
    try:
        with cancels_kept():
            async with asyncio.timeout(timeout_s):
                return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise down(f"the state Redis does not answer: {type(error).__name__}: {error}") from error
