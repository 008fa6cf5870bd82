"""The limiter that all gateways share: one Lua script in the state Redis, on Redis' clock.

Knows nothing about requests. Each call may fail or hang like Redis: whoever uses it gives it a budget.
"""

from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from serin_gateway.limits.limiter import Admission, Lease, Standing


class RedisLimiter:
    """Limits in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
    """

    def __init__(self, redis: Redis, *, organization: str = "default") -> None:
        self._script = redis.register_script(files(__package__).joinpath("limits.lua").read_text())
        self._prefix = f"serin:{{{organization}}}:limit:"
        self._posted: dict[str, int] = {}

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its tokens, or refuse and count nothing."""
        return await self._admit("reserve", lease)

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more tokens for a lease, all of them or none."""
        return await self._admit("grow", lease)

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage."""
        await self._run("renew", lease)
        self._posted[lease.lease_id] = lease.used_tokens

    async def settle(self, lease: Lease) -> None:
        """End a lease."""
        try:
            await self._run("settle", lease)
        finally:
            self._posted.pop(lease.lease_id, None)

    async def _admit(self, verb: str, lease: Lease) -> Admission:
        refused_by, retry_ms, requests, reset_requests_ms, tokens, reset_tokens_ms = await self._run(verb, lease)
        standing = Standing(lease.limits, requests, reset_requests_ms / 1000, tokens, reset_tokens_ms / 1000)
        return Admission(standing, refused_by.decode() or None, retry_ms / 1000)

    async def _run(self, verb: str, lease: Lease) -> list[Any]:
        rest = max(0, lease.reserved_tokens - lease.used_tokens)
        limits, known = lease.limits, self._posted.get(lease.lease_id, 0)
        keys = [f"{self._prefix}{lease.subject}:{part}" for part in ("window", "expiry", "reserved")]
        per_minute = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)
        answer: list[Any] = await self._script(
            keys, [verb, lease.lease_id, rest, lease.used_tokens, known, *per_minute]
        )
        return answer
