"""Sums of the ledger in the state Redis, as `limits.lua` keeps them: ``serin:{org}:usage:<date>``.

Knows nothing about requests; a slow or dead Redis becomes `KeyStoreDown` within the budget.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from serin_gateway.keys.store import KeyStoreDown
from serin_gateway.ledger.line import SEPARATOR
from serin_gateway.ledger.usage import Sum
from serin_gateway.redis_calls import in_time


class RedisUsage:
    """Sums in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, *, organization: str = "default", timeout_s: float = 5.0) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._prefix = f"serin:{{{organization}}}:usage:"

    async def sums(self, days: Sequence[str]) -> Sequence[Sum]:
        """The sums of some days; one that is damaged does not hide the others."""
        found: list[Sum] = []
        for day in days:
            stored = await self._answer(self._redis.hgetall(self._prefix + day))
            by_name: dict[str, dict[str, int]] = {}
            for field, value in stored.items():
                name, _, what = field.decode().rpartition(SEPARATOR)
                by_name.setdefault(name, {})[what] = int(value)
            for name, counts in by_name.items():
                with suppress(ValueError):
                    found.append(Sum.of(day, name, counts))
        return found

    async def _answer(self, call: Any) -> Any:
        return await in_time(call, self._timeout_s, KeyStoreDown)
