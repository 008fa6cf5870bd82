"""A process with a limiter of its own, for test_limits: asks for many leases at once when it is told to.

python limit_caller.py URL, then for each job a line of JSON and a line that says go.
"""

import asyncio
import json
import sys
from typing import Any

from redis.asyncio import Redis
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import NOTHING, Amount, Limits, Scope
from serin_gateway.limits.reservation import Reservation
from serin_gateway.limits.shared import RedisLimiter

KINDS = ("key", "project", "organization", "model")


async def main(url: str) -> None:
    """For each job say `ready`, wait for a line, ask, and print who was admitted."""
    async with Redis.from_url(url) as redis:
        leases = LeaseBook(RedisLimiter(redis))
        while job := await asyncio.to_thread(sys.stdin.readline):
            await redis.ping()
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            print(json.dumps(await done(leases, **json.loads(job))), flush=True)


async def done(
    leases: LeaseBook, kind: str, limits: dict[str, Any], amount: list[int], bound: list[int], count: int
) -> dict[str, Any]:
    """How many of ``count`` calls at once were admitted and refused, and whose limits refused."""
    needed, most = Amount(*amount), Amount(*bound)
    scopes = [Scope(one, "x", Limits(**limits) if one == kind else Limits()) for one in KINDS]

    async def ask() -> str:
        """Whose limit refuses; empty: none."""
        reservation = Reservation(leases, scopes, lambda: NOTHING)
        try:
            await reservation.open(most, needed if most == needed else Amount(1, 1))
            await reservation.cover("prompt", needed, most)
        except RateLimited as refusal:
            return refusal.metadata["scope"]
        return ""

    refusing = [scope for scope in await asyncio.gather(*(ask() for _ in range(count))) if scope]
    return {"admitted": count - len(refusing), "refused": len(refusing), "scopes": sorted(set(refusing))}


asyncio.run(main(sys.argv[1]))
