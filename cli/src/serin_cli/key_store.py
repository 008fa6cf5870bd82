"""The key store of a running mesh, opened for the time of one command.

Knows where the mesh keeps its state, nothing about what is done with keys.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from serin_gateway.keys import RedisKeyStore


@asynccontextmanager
async def open_key_store(url: str) -> AsyncIterator[RedisKeyStore]:
    """The keys in the state Redis at ``url``."""
    redis: Redis = Redis.from_url(url)
    try:
        yield RedisKeyStore(redis)
    finally:
        await redis.aclose()
