"""What a request may use at some scopes: reserved before it is known, exact as soon as it is, given back in the end.

Knows nothing about requests beyond what they may use, nor about how limits are counted.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence

from serin_gateway.limits.leases import LeaseBook, RateLimited
from serin_gateway.limits.limiter import Amount, BillingLine, Lease, Scope, Standing


class Reservation:
    """A lease, from an upper bound to what was used.

    Where the bound is more than a limit can ever allow, nothing is reserved yet but the request itself: each of its
    parts is covered as soon as it is counted, and so is what turns out to be more than its bound.

    Args:
        leases: where leases are taken.
        scopes: whose limits it counts against.
        used: what has been used of it so far.
        facts: what somebody else needs to know to settle it; empty: it leaves no line in the ledger.
        lease_id: what it is to be billed as; default: a new one.
    """

    def __init__(
        self,
        leases: LeaseBook,
        scopes: Sequence[Scope],
        used: Callable[[], Amount],
        facts: str = "",
        lease_id: str = "",
    ) -> None:
        self._leases = leases
        self._scopes = scopes
        self._used = used
        self._facts = facts
        self._wanted_id = lease_id
        self._lease: Lease | None = None
        self._counted: dict[Hashable, Amount] = {}
        self._growing = asyncio.Lock()
        self.standing: Standing | None = None
        self.lease_id = ""
        """What it is billed as; empty until it is open."""

    async def open(self, most: Amount) -> None:
        """Reserve ``most``, or only the request where that is more than is ever allowed.

        Raises:
            MeshError: RATE_LIMITED.
        """
        try:
            await self._take(most)
        except RateLimited as refusal:
            if not refusal.never_fits:
                raise
            await self._take(Amount())

    async def cover(self, part: Hashable, most: Amount) -> None:
        """Wait until the lease is written down; where its parts can use more than it has reserved, reserve that.

        Raises:
            MeshError: RATE_LIMITED.
        """
        counted, lease = self._counted, self._lease
        if lease is None:
            return
        await self._leases.opened(lease)
        async with self._growing:
            counted[part] = most
            parts = counted.values()
            whole = Amount(sum(one.tokens for one in parts), sum(one.nano for one in parts))
            if lease.is_limited and whole.tokens > lease.reserved.tokens:
                self.standing = await self._leases.grow(lease, whole)

    async def give_back(self, lines: Sequence[BillingLine] = ()) -> None:
        """End it with what was used. A second time changes nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._leases.give_back(lease, lines)

    async def _take(self, most: Amount) -> None:
        self._lease, self.standing = await self._leases.take(
            self._scopes, most, self._used, lease_id=self._wanted_id, facts=self._facts
        )
        self.lease_id = self._lease.lease_id
