"""Limits that hold while Redis is away: the shared limiter within a budget, else this gateway's own, conservatively.

The local limiter hears of everything this gateway admits, so it knows the last minute when it has to decide alone; it
then grants a share of each limit. Knows nothing about Redis itself.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from redis.exceptions import RedisError
from serin_mesh.breaker import Unavailable

from serin_gateway.limits.limiter import Admission, Lease, Limiter
from serin_gateway.limits.memory import MemoryLimiter

T = TypeVar("T")

REDIS_FAILURES = (RedisError, OSError)


class Calls(Protocol):
    """Makes calls that may fail or hang."""

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's result.

        Raises:
            Unavailable: not tried, failed, or too slow.
        """


class FallbackLimiter:
    """A limiter that always answers, and quickly.

    Args:
        shared: what all gateways agree on.
        calls: gives calls of ``shared`` their budget.
        share: part of each limit that this gateway grants by itself while ``shared`` is away.
        on_alone: told of each request that this gateway decided about by itself, and whether it was admitted.
    """

    def __init__(
        self, shared: Limiter, calls: Calls, *, share: float = 0.5, on_alone: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._shared = shared
        self._calls = calls
        self._share = share
        self._on_alone = on_alone
        self._local = MemoryLimiter()

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its tokens, or refuse."""
        try:
            admission = await self._calls.call(lambda: self._shared.reserve(lease))
        except Unavailable:
            return self._alone(self._local.reserve_now(self._own(lease)))
        if admission.refused_by is None:
            self._local.reserve_now(lease, enforce=False)
        return admission

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more tokens for a lease, or refuse."""
        try:
            admission = await self._calls.call(lambda: self._shared.grow(lease))
        except Unavailable:
            return self._alone(self._local.grow_now(self._own(lease)))
        if admission.refused_by is None:
            self._local.grow_now(lease, enforce=False)
        return admission

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive; a lease that Redis has lost or never heard of begins there again."""
        self._local.renew_now(lease)
        with suppress(Unavailable):  # the next renewal posts what this one cannot
            await self._calls.call(lambda: self._shared.renew(lease))

    async def settle(self, lease: Lease) -> None:
        """End a lease; one that Redis does not hear of ends there by itself."""
        self._local.settle_now(lease)
        with suppress(Unavailable):
            await self._calls.call(lambda: self._shared.settle(lease))

    def _own(self, lease: Lease) -> Lease:
        return replace(lease, limits=lease.limits.share(self._share))

    def _alone(self, admission: Admission) -> Admission:
        self._on_alone(admission.refused_by is None)
        return replace(admission, standing=replace(admission.standing, is_local_share=True))
