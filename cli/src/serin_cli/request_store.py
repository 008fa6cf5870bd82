"""What gateways of a running mesh remember of finished requests, opened for the time of one command.

Knows where the mesh keeps its state, nothing about what is done with records.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from serin_gateway.observing.redis_records import RedisRecords


@asynccontextmanager
async def open_records(url: str, organization: str) -> AsyncIterator[RedisRecords]:
    """The records in the state Redis at ``url``, of the mesh whose own organization this is."""
    redis: Redis = Redis.from_url(url)
    try:
        yield RedisRecords(redis, organization=organization)
    finally:
        await redis.aclose()
