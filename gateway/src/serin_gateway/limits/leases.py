"""The leases of all requests that run here: taken, renewed while they run, given back.

Knows nothing about how limits are counted, nor about requests beyond a number of tokens.
"""

import asyncio
import math
import secrets
from collections.abc import Callable

from serin_mesh.errors import MeshError, Reason

from serin_gateway.limits.limiter import LEASE_S, Lease, Limiter, Limits, Standing

RENEW_EVERY_S = LEASE_S / 3


class LeaseBook:
    """Takes leases and keeps them alive; `keep_alive` is a task of whoever owns the book."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._held: dict[str, tuple[Lease, Callable[[], int]]] = {}

    async def take(
        self, subject: str, limits: Limits, most_tokens: int, used: Callable[[], int]
    ) -> tuple[Lease | None, Standing | None]:
        """A lease on one request of ``most_tokens`` at most; nothing for subjects without limits.

        Args:
            subject: whose limits they are.
            limits: the limits.
            most_tokens: upper bound of what the request will use.
            used: tokens that it has used so far, asked at every renewal.

        Raises:
            MeshError: RATE_LIMITED, with the limit's name and when to try again.
        """
        if limits.is_unlimited:
            return None, None
        lease = Lease(secrets.token_hex(16), subject, limits, most_tokens)
        admission = await self._limiter.reserve(lease)
        if admission.refused_by is not None:
            raise _refusal(admission.refused_by, admission.retry_after_s, lease, admission.standing)
        self._held[lease.lease_id] = (lease, used)
        return lease, admission.standing

    async def give_back(self, lease: Lease) -> None:
        """End a lease with what its request has used."""
        _, used = self._held.pop(lease.lease_id)
        lease.used_tokens = used()
        await self._limiter.settle(lease)

    async def keep_alive(self) -> None:
        """Renew everything held, for as long as this task lives."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            await self.renew_all()

    async def renew_all(self) -> None:
        """Renew everything held, once."""
        for lease, used in list(self._held.values()):
            if lease.lease_id in self._held:
                lease.used_tokens = used()
                await self._limiter.renew(lease)
                if lease.lease_id not in self._held:  # given back meanwhile: a late renewal must not revive it
                    await self._limiter.settle(lease)


class RateLimited(MeshError):
    """A limit of the caller's own refuses; carries where it stands."""

    def __init__(self, message: str, standing: Standing, **metadata: str) -> None:
        super().__init__(Reason.RATE_LIMITED, message, **metadata)
        self.standing = standing


def _refusal(limit: str, retry_after_s: float, lease: Lease, standing: Standing) -> RateLimited:
    limits, seconds = lease.limits, min(60, max(1, math.ceil(retry_after_s)))
    if limit == "tokens" and lease.reserved_tokens > limits.tokens_per_minute:
        too_large = (
            f"this request may use up to {lease.reserved_tokens} tokens (prompt and answer), more than the limit of "
            f"{limits.tokens_per_minute} tokens per minute ever allows; shorten the prompt or lower max_tokens"
        )
        return RateLimited(too_large, standing, limit=limit, should_retry="false")
    what = {
        "requests": f"{limits.requests_per_minute} requests per minute",
        "tokens": f"{limits.tokens_per_minute} tokens per minute (this request may use {lease.reserved_tokens})",
        "concurrency": f"{limits.concurrent_requests} requests at the same time",
    }[limit]
    return RateLimited(
        f"the key's limit of {what} is reached; try again in {seconds} s",
        standing,
        limit=limit,
        retry_after_s=str(seconds),
    )
