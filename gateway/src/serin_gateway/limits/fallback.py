"""Limits that hold while Redis is away: the shared limiter, else this gateway's own, conservatively.

The local limiter hears of everything this gateway admits, so it knows the last minute when it has to decide alone; it
then grants a share of each limit. Knows nothing about Redis itself.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from redis.exceptions import RedisError
from serin_mesh.breaker import Unavailable

from serin_gateway.limits.limiter import Admission, BillingLine, Lease, Limiter
from serin_gateway.limits.memory import MemoryLimiter

REDIS_FAILURES = (RedisError, OSError)


class FallbackLimiter:
    """A limiter that always answers, and quickly.

    Args:
        shared: what all gateways agree on; it raises `Unavailable` where it cannot be asked.
        share: part of each limit that this gateway grants by itself while ``shared`` is away.
        on_alone: told of each request that this gateway decided about by itself, and whether it was admitted.
    """

    def __init__(
        self, shared: Limiter, *, share: float = 0.5, on_alone: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._shared = shared
        self._share = share
        self._on_alone = on_alone
        self._local = MemoryLimiter()

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its amount, or refuse."""
        try:
            admission = await self._shared.reserve(lease)
        except Unavailable:
            return self._alone(self._local.reserve_now(self._own(lease)))
        if admission.refused_by is None:
            self._local.reserve_now(replace(lease, reserved=admission.reserved), enforce=False)
        return admission

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more for a lease, or refuse."""
        try:
            admission = await self._shared.grow(lease)
        except Unavailable:
            return self._alone(self._local.grow_now(self._own(lease)))
        if admission.refused_by is None:
            self._local.grow_now(lease, enforce=False)
        return admission

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive; a lease that Redis has lost or never heard of begins there again."""
        self._local.renew_now(lease)
        with suppress(Unavailable):  # the next renewal posts what this one cannot
            await self._shared.renew(lease)

    async def settle(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease; what Redis cannot hear of now it hears of later."""
        self._local.settle_now(lease)
        with suppress(Unavailable):
            await self._shared.settle(lease, lines)

    def settle_later(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease that nobody waits for."""
        self._local.settle_now(lease)
        self._shared.settle_later(lease, lines)

    def _own(self, lease: Lease) -> Lease:
        scopes = [replace(scope, limits=scope.limits.share(self._share)) for scope in lease.scopes]
        return replace(lease, scopes=scopes)

    def _alone(self, admission: Admission) -> Admission:
        self._on_alone(admission.refused_by is None)
        return replace(admission, standing=replace(admission.standing, is_local_share=True))
