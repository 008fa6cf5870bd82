"""A process with a limiter of its own, for test_limits: asks for many leases at once when it is told to.

python limit_caller.py URL KIND LIMITS_JSON TOKENS NANO BOUND_TOKENS BOUND_NANO COUNT
"""

import asyncio
import json
import sys

from redis.asyncio import Redis
from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import NOTHING, Amount, Limits, Scope
from serin_gateway.limits.reservation import Reservation
from serin_gateway.limits.shared import RedisLimiter


async def main(url: str, kind: str, limits: str, *figures: str) -> None:
    """Say `ready`, wait for a line, ask, and print who was admitted."""
    tokens, nano, bound_tokens, bound_nano, count = map(int, figures)
    needed, bound = Amount(tokens, nano), Amount(bound_tokens, bound_nano)
    async with Redis.from_url(url) as redis:
        leases = LeaseBook(RedisLimiter(redis))
        await redis.ping()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        kinds = ("key", "project", "organization", "model")
        scopes = [Scope(one, "x", Limits(**json.loads(limits)) if one == kind else Limits()) for one in kinds]

        async def ask() -> str:
            """Whose limit refuses; empty: none."""
            reservation = Reservation(leases, scopes, lambda: NOTHING)
            try:
                await reservation.open(bound, needed if bound == needed else Amount(1, 1))
                await reservation.cover("prompt", needed, bound)
            except RateLimited as refusal:
                return refusal.metadata["scope"]
            return ""

        scopes_that_refuse = [scope for scope in await asyncio.gather(*(ask() for _ in range(count))) if scope]
        refused = len(scopes_that_refuse)
        print(json.dumps({"admitted": count - refused, "refused": refused, "scopes": sorted(set(scopes_that_refuse))}))


asyncio.run(main(*sys.argv[1:]))
