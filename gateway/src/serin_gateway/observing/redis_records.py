"""Records of finished requests in the state Redis, shared by all gateways and the command line.

``serin:{org}:request:<id>`` is a hash, tenant to record as JSON; ``serin:{org}:feedback:<id>`` the tenants that gave
feedback on it. Both end by themselves. Knows nothing about requests; a slow or dead Redis becomes
:class:`RecordsDown` within the budget.
"""

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import Redis

from serin_gateway.observing.record import RequestRecord
from serin_gateway.observing.records import RecordsDown
from serin_gateway.redis_calls import in_time

T = TypeVar("T")

FEEDBACK_TTL_S = 86_400


class RedisRecords:
    """Records in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._requests = f"serin:{{{organization}}}:request:"
        self._feedback = f"serin:{{{organization}}}:feedback:"

    async def put(self, records: Sequence[RequestRecord], ttl_s: int) -> None:
        """Keep records, all in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for record in records:
                key = self._requests + record.request_id
                pipe.hset(key, record.tenant, record.to_json())
                pipe.expire(key, ttl_s)
            await self._answer(pipe.execute())

    async def find(self, request_id: str) -> Sequence[RequestRecord]:
        """The records of an identifier; one that is damaged does not hide the others."""
        stored = await self._answer(_awaitable(self._redis.hgetall(self._requests + request_id)))
        found = []
        for text in stored.values():
            with suppress(ValueError):
                found.append(RequestRecord.from_json(text))
        return found

    async def claim_feedback(self, tenant: str, request_id: str) -> bool:
        """Whether this is the first."""
        key = self._feedback + request_id
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hsetnx(key, tenant, 1)
            pipe.expire(key, FEEDBACK_TTL_S)
            is_first, _ = await self._answer(pipe.execute())
        return bool(is_first)

    async def _answer(self, call: Awaitable[T]) -> T:
        return await in_time(call, self._timeout_s, RecordsDown)


def _awaitable(call: Any) -> Awaitable[dict[Any, bytes | str]]:
    """The client's own types do not say that this command is awaitable."""
    answer: Awaitable[dict[Any, bytes | str]] = call
    return answer
