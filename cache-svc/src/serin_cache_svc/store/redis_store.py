"""Answers in the cache Redis: keys tagged by group, so that a group lives in one slot and can be deleted.

The only module that knows Redis. It neither retries nor waits: whoever calls has a budget.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from serin_cache_svc.errors import StoreDown

MAX_CONNECTIONS = 32
SCAN_COUNT = 1000
CALL_TIMEOUT_S = 5.0
"""Longest wait of one step of a purge; the other calls have the breaker's budget."""


class RedisAnswerStore:
    """Answers in a Redis or Valkey.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=CALL_TIMEOUT_S,
            # None: with a time-out the client sends by `asyncio.wait_for`, which before Python 3.12 can lose the cancel
            # by which a budget ends a call. Every call here has a budget, the breaker's or a purge's own.
            socket_timeout=None,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis(connection_pool=pool)

    async def get(self, group_tag: str, key: str) -> bytes | None:
        """The value, if it is there."""
        with _down():
            value = await self._redis.get(_key(group_tag, key))
        return value.encode() if isinstance(value, str) else value

    async def put(self, group_tag: str, key: str, value: bytes, ttl_s: int) -> None:
        """Keep a value for ``ttl_s`` seconds."""
        with _down():
            await self._redis.set(_key(group_tag, key), value, ex=ttl_s)

    async def purge(self, group_tag: str) -> int:
        """Delete every value of a group; returns how many there were."""
        num_deleted = 0
        with _down():
            cursor = 0
            while True:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    cursor, keys = await self._redis.scan(cursor, match=_key(group_tag, "*"), count=SCAN_COUNT)
                    if keys:
                        num_deleted += await self._redis.unlink(*keys)
                if cursor == 0:
                    return num_deleted

    async def ping(self) -> None:
        """Find out whether the store answers."""
        with _down():
            await self._redis.ping()

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose(close_connection_pool=True)
        await self._redis.connection_pool.disconnect()


def _key(group_tag: str, key: str) -> str:
    return f"serin:{{{group_tag}}}:answer:{key}"


@contextmanager
def _down() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreDown(f"the cache Redis did not answer: {type(error).__name__}: {error}") from error
