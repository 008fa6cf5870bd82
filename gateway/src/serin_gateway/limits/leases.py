"""The leases of all requests that run here: taken, renewed while they run, given back.

Knows nothing about how limits are counted, nor about requests beyond a number of tokens.
"""

import asyncio
import math
import secrets
from collections.abc import Callable

from serin_mesh.errors import MeshError, Reason

from serin_gateway.limits.limiter import LEASE_S, Admission, Lease, Limiter, LimitName, Limits, Standing

RENEW_EVERY_S = LEASE_S / 3
SHARED_AGAIN_S = 5
"""When to try again what only this gateway's own share of a limit does not allow."""
LOCAL_SCOPE = {"limit_scope": "local-share"}


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
            raise _refusal(admission.refused_by, admission, lease)
        self._held[lease.lease_id] = (lease, used)
        return lease, admission.standing

    async def grow(self, lease: Lease, most_tokens: int) -> Standing:
        """Reserve more for a request that runs: ``most_tokens`` in all, or nothing more.

        Raises:
            MeshError: RATE_LIMITED, with the limit's name and when to try again.
        """
        before, lease.reserved_tokens = lease.reserved_tokens, most_tokens
        admission = await self._limiter.grow(lease)
        if admission.refused_by is not None:
            refusal = _refusal(admission.refused_by, admission, lease)
            lease.reserved_tokens = before
            raise refusal
        return admission.standing

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
    """A limit of the caller's own refuses; carries where it stands, and whether it would allow as much at all."""

    def __init__(self, message: str, standing: Standing, never_fits: bool = False, **metadata: str) -> None:
        super().__init__(Reason.RATE_LIMITED, message, **metadata)
        self.standing = standing
        self.never_fits = never_fits


def _refusal(limit: LimitName, admission: Admission, lease: Lease) -> RateLimited:
    standing, seconds = admission.standing, min(60, max(1, math.ceil(admission.retry_after_s)))
    limits, whose, scope = standing.limits, "the key's limit", dict[str, str]()
    if standing.is_local_share:
        whose, scope = "this gateway's own share of the key's limit (no shared count can be asked now)", LOCAL_SCOPE
    if limit == "tokens" and lease.reserved_tokens > limits.tokens_per_minute:
        too_large = (
            f"this request may use up to {lease.reserved_tokens} tokens (prompt and answer), more than {whose} of "
            f"{limits.tokens_per_minute} tokens per minute "
        )
        if standing.is_local_share:
            later = f"allows; try again in {SHARED_AGAIN_S} s"
            return RateLimited(
                too_large + later, standing, True, limit=limit, retry_after_s=str(SHARED_AGAIN_S), **scope
            )
        never = "ever allows; shorten the prompt or lower max_tokens"
        return RateLimited(too_large + never, standing, True, limit=limit, should_retry="false")
    what = {
        "requests": f"{limits.requests_per_minute} requests per minute",
        "tokens": f"{limits.tokens_per_minute} tokens per minute (this request may use {lease.reserved_tokens})",
        "concurrency": f"{limits.concurrent_requests} requests at the same time",
    }[limit]
    return RateLimited(
        f"{whose} of {what} is reached; try again in {seconds} s",
        standing,
        False,
        limit=limit,
        retry_after_s=str(seconds),
        **scope,
    )
