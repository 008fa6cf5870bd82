"""The leases of all requests that run here: taken, renewed while they run, given back.

Knows nothing about how limits are counted, nor about requests beyond what they may use.
"""

import asyncio
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from serin_mesh.errors import MeshError, Reason

from serin_gateway.limits.limiter import (
    LEASE_S,
    Admission,
    Amount,
    BillingLine,
    Lease,
    Limiter,
    LimitName,
    Scope,
    Standing,
)

RENEW_EVERY_S = LEASE_S / 3
SHARED_AGAIN_S = 5
"""When to try again what only this gateway's own share of a limit does not allow."""
PLENTY_SHARE = 0.5
LOCAL_SHARE = "local-share"
NANO_PER_UNIT = 1_000_000_000


def new_lease_id() -> str:
    """128 random bits: no caller chooses or guesses what its requests are billed as."""
    return secrets.token_hex(16)


class LeaseBook:
    """Takes leases and keeps them alive; `keep_alive` is a task of whoever owns the book."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._held: dict[str, tuple[Lease, Callable[[], Amount]]] = {}
        self._opening: dict[str, asyncio.Future[Admission]] = {}

    async def take(
        self,
        scopes: Sequence[Scope],
        most: Amount,
        used: Callable[[], Amount],
        *,
        least: Amount | None = None,
        lease_id: str = "",
        facts: str = "",
    ) -> tuple[Lease, Standing | None]:
        """A lease on one request of ``most`` at most; no standing where no scope has limits.

        What it holds is in ``reserved``: nothing yet, where it has to be counted first.

        Args:
            scopes: whose limits it counts against.
            most: upper bound of what the request will use.
            used: what it has used so far, asked at every renewal.
            least: ``most`` is a loose bound, and so much at least is needed; see `Lease`.
            lease_id: what it is billed as; default: a new one.
            facts: see `Lease`.

        Raises:
            MeshError: RATE_LIMITED, with the scope, the limit's name and when to try again.
        """
        lease = Lease(lease_id or new_lease_id(), scopes, most, facts=facts, least=least)
        if not lease.is_limited:  # nobody can refuse it: it is written ahead while other work is done
            self._held[lease.lease_id] = (lease, used)
            self._opening[lease.lease_id] = asyncio.ensure_future(self._limiter.reserve(lease))
            return lease, None
        admission = await self._limiter.reserve(lease)
        if admission.refused_by is not None:
            raise _refusal(admission.refused_by, admission, lease)
        lease.reserved, lease.least = admission.reserved, None
        lease.is_missed = _is_missed(scopes, admission.standing)
        self._held[lease.lease_id] = (lease, used)
        return lease, admission.standing

    async def opened(self, lease: Lease) -> None:
        """Wait until a lease is written down, so that it is settled whatever becomes of this gateway."""
        opening = self._opening.get(lease.lease_id)
        if opening is not None:
            await asyncio.shield(opening)

    async def grow(self, lease: Lease, most: Amount) -> Standing:
        """Reserve more for a request that runs: ``most`` in all, or nothing more.

        Raises:
            MeshError: RATE_LIMITED, with the scope, the limit's name and when to try again.
        """
        # The lease itself is as it was until this is decided: a renewal meanwhile must not reserve what is refused.
        wanted = replace(lease, reserved=most, revision=lease.revision + 1)
        try:
            admission = await self._limiter.grow(wanted)
        finally:
            lease.revision = wanted.revision
        if admission.refused_by is not None:
            raise _refusal(admission.refused_by, admission, wanted)
        lease.reserved = most
        return admission.standing

    def shrink(self, lease: Lease, most: Amount) -> None:
        """From now on hold ``most`` for a request, which is less than before: the next renewal frees the rest."""
        lease.reserved = most
        lease.revision += 1

    async def give_back(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease with what its request has used, and bill it."""
        _, used = self._held.pop(lease.lease_id)
        lease.used = used()
        await self.opened(lease)
        self._opening.pop(lease.lease_id, None)
        if lease.is_limited and lease.is_missed:
            await self._limiter.settle(lease, lines)
        else:
            self._limiter.settle_later(lease, lines)

    async def keep_alive(self) -> None:
        """Renew everything held, for as long as this task lives."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            await self.renew_all()

    async def renew_all(self) -> None:
        """Renew everything held, once."""
        await asyncio.gather(*(self._renew(lease, used) for lease, used in list(self._held.values())))

    async def _renew(self, lease: Lease, used: Callable[[], Amount]) -> None:
        lease.used = used()
        await self._limiter.renew(lease)
        if lease.lease_id not in self._held:  # given back meanwhile: a late renewal must not revive it
            await self._limiter.settle(replace(lease, facts=""))


def _is_missed(scopes: Sequence[Scope], standing: Standing) -> bool:
    """Whether what a lease leaves over may be what somebody's next request needs: it has to be free at once then.

    Where half of the tightest limits is left, only a request that needs as much would notice, and only one that another
    gateway gets in the same moment: of this one's own, each goes to Redis behind what was given back before.
    """
    limits = [scope.limits for scope in scopes]
    if any(one.concurrent_requests or one.tokens_per_day or one.money_per_month for one in limits):
        return True
    windows = (standing.requests, standing.tokens)
    return any(window.remaining < PLENTY_SHARE * window.limit for window in windows if window is not None)


class RateLimited(MeshError):
    """A limit refuses; carries where the caller stands, and whether it would allow as much at all."""

    def __init__(self, message: str, standing: Standing, never_fits: bool = False, **metadata: str) -> None:
        super().__init__(Reason.RATE_LIMITED, message, **metadata)
        self.standing = standing
        self.never_fits = never_fits


def _refusal(name: LimitName, admission: Admission, lease: Lease) -> RateLimited:
    standing, limit, scope = admission.standing, admission.limit, admission.scope or "key"
    seconds = max(1, math.ceil(admission.retry_after_s))
    if name in ("requests", "tokens"):
        seconds = min(60, seconds)
    whose, where = f"the {scope}'s limit", str(scope)
    if standing.is_local_share:
        whose = f"this gateway's own share of the {scope}'s limit (no shared count can be asked now)"
        where = LOCAL_SHARE
    facts = {"limit": name, "scope": scope, "limit_value": str(limit), "limit_scope": where}
    value = _value(name, limit)
    needed = lease.reserved if lease.least is None else lease.least
    wanted = needed.nano if name == "money_per_month" else needed.tokens
    uses = "may use up to" if lease.least is None else "needs at least"
    if name in ("tokens", "tokens_per_day", "money_per_month") and wanted > limit:
        may_use = _units(wanted) if name == "money_per_month" else f"{wanted} tokens (prompt and answer)"
        too_large = f"this request {uses} {may_use}, more than {whose} of {value} "
        if standing.is_local_share:
            later = f"allows; try again in {SHARED_AGAIN_S} s"
            return RateLimited(too_large + later, standing, True, retry_after_s=str(SHARED_AGAIN_S), **facts)
        never = "ever allows; ask for less: a shorter prompt or list, a lower max_tokens"
        return RateLimited(too_large + never, standing, True, should_retry="false", **facts)
    state = "is reached"
    if name in ("tokens", "tokens_per_day"):
        # Nothing is wanted yet of who only has tokens counted, or whose prompt is covered once its tokens are known.
        state = f"(this request {uses} {wanted}) is reached" if wanted else "is used up already, by earlier requests"
    message = f"{whose} of {value} {state}; try again in {seconds} s"
    return RateLimited(message, standing, False, retry_after_s=str(seconds), **facts)


def _value(name: LimitName, limit: int) -> str:
    return {
        "requests": f"{limit} requests per minute",
        "tokens": f"{limit} tokens per minute",
        "concurrency": f"{limit} requests at the same time",
        "tokens_per_day": f"{limit} tokens per day",
        "money_per_month": f"{_units(limit)} of money per month",
    }[name]


def _units(nano: int) -> str:
    """An amount of money as a decimal of the currency; no float touches it."""
    whole, rest = divmod(nano, NANO_PER_UNIT)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
