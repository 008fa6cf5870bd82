"""A process with a limiter of its own, for test_limits: asks for many leases at once when it is told to.

python limit_caller.py URL KIND LIMITS_JSON TOKENS NANO COUNT
"""

import asyncio
import json
import sys

from redis.asyncio import Redis
from serin_gateway.limits.leases import new_lease_id
from serin_gateway.limits.limiter import Amount, Lease, Limits, Scope
from serin_gateway.limits.shared import RedisLimiter


async def main(url: str, kind: str, limits: str, tokens: str, nano: str, count: str) -> None:
    """Say `ready`, wait for a line, ask, and print who was admitted."""
    async with Redis.from_url(url) as redis:
        limiter = RedisLimiter(redis)
        await redis.ping()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        kinds = ("key", "project", "organization", "model")
        scopes = [Scope(one, "x", Limits(**json.loads(limits)) if one == kind else Limits()) for one in kinds]
        asked = [
            limiter.reserve(Lease(new_lease_id(), scopes, Amount(int(tokens), int(nano)))) for _ in range(int(count))
        ]
        answers = await asyncio.gather(*asked)
        refused = [answer for answer in answers if answer.refused_by is not None]
        print(
            json.dumps(
                {
                    "admitted": len(answers) - len(refused),
                    "refused": len(refused),
                    "scopes": sorted({str(answer.scope) for answer in refused}),
                }
            )
        )


asyncio.run(main(*sys.argv[1:]))
