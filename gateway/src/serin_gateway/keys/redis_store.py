"""Keys in the state Redis, shared by all gateways and the command line.

``serin:{org}:key:<digest>`` holds a record as JSON, ``serin:{org}:keys`` the set of all digests. Knows nothing about
requests; a slow or dead Redis becomes :class:`KeyStoreDown` within the budget.
"""

import contextlib
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import TypeVar

from redis.asyncio import Redis

from serin_gateway.keys.records import KeyRecord
from serin_gateway.keys.store import KeyNotFound, KeyStoreDown
from serin_gateway.redis_calls import in_time

T = TypeVar("T")


class RedisKeyStore:
    """Key records in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: "Redis", *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._prefix = f"serin:{{{organization}}}:key:"
        self._index = f"serin:{{{organization}}}:keys"

    async def create(self, record: KeyRecord) -> None:
        """Keep a new key."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._prefix + record.digest, record.to_json())
            pipe.sadd(self._index, record.digest)
            await self._answer(pipe.execute())

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, oldest first."""
        members: set[bytes | str] = await self._answer(self._redis.smembers(self._index))
        digests = sorted(m.decode() if isinstance(m, bytes) else m for m in members)
        if not digests:
            return []
        stored = await self._answer(self._redis.mget([self._prefix + digest for digest in digests]))
        return sorted(_readable(stored), key=lambda record: record.created_at)

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke by public name."""
        for record in await self.list():
            if record.key_id == key_id:
                revoked = record.revoked(time.time())
                await self._answer(self._redis.set(self._prefix + record.digest, revoked.to_json()))
                return revoked
        raise KeyNotFound(f"no key is named {key_id!r}; `serin key list` shows all names")

    async def lookup(self, digest: str) -> KeyRecord | None:
        """The key with this digest."""
        text = await self._answer(self._redis.get(self._prefix + digest))
        try:
            return None if text is None else KeyRecord.from_json(text)
        except ValueError as error:
            raise KeyStoreDown(f"the key's record is damaged: {error}") from error

    async def _answer(self, call: Awaitable[T]) -> T:
        return await in_time(call, self._timeout_s, KeyStoreDown)


def _readable(stored: Iterable[bytes | str | None]) -> Iterator[KeyRecord]:
    """Records that can be read; one that is damaged does not hide the others."""
    for text in stored:
        if text is not None:
            with contextlib.suppress(ValueError):
                yield KeyRecord.from_json(text)
