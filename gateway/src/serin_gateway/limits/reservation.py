"""What a request may use at some scopes: bounded before it is known, exact as soon as it is, given back in the end.

Knows nothing about requests beyond what they may use, nor about how limits are counted.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence

from serin_gateway.limits.leases import LeaseBook
from serin_gateway.limits.limiter import NOTHING, Amount, BillingLine, Lease, Scope, Standing


class Reservation:
    """A lease, from an upper bound to what was used.

    Where bounds would hold too much of what a limit has left, nothing is reserved yet but the request itself: each of
    its parts is covered as soon as it is counted, and so is what turns out to be more than its bound. What a bound was
    too much is free with the lease's next renewal, which nobody waits for.

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
        self._bound = NOTHING
        self._bounds: dict[Hashable, Amount] = {}
        self._counted: dict[Hashable, Amount] = {}
        self._growing = asyncio.Lock()
        self.standing: Standing | None = None
        self.lease_id = ""
        """What it is billed as; empty until it is open."""

    async def open(self, most: Amount, least: Amount = NOTHING) -> None:
        """Reserve ``most``, or only the request where that has to be counted first.

        Raises:
            MeshError: RATE_LIMITED, not even ``least`` is left.
        """
        self._lease, self.standing = await self._leases.take(
            self._scopes,
            most,
            self._used,
            least=None if least == most else least,
            lease_id=self._wanted_id,
            facts=self._facts,
        )
        self.lease_id, self._bound = self._lease.lease_id, most

    async def cover(self, part: Hashable, most: Amount, bound: Amount) -> None:
        """Wait until the lease is written down, and have it hold what its parts can use.

        Args:
            part: which of them has been counted.
            most: what it can use.
            bound: what it was taken for when all was reserved.

        Raises:
            MeshError: RATE_LIMITED.
        """
        lease = self._lease
        if lease is None:
            return
        await self._leases.opened(lease)
        async with self._growing:
            self._counted[part], self._bounds[part] = most, bound
            if not lease.is_limited:
                return
            whole = sum(self._counted.values(), NOTHING)
            if not lease.reserved.holds(whole):
                self.standing = await self._leases.grow(lease, lease.reserved.at_least(whole))
                return
            uncounted = self._bound.less(sum(self._bounds.values(), NOTHING))
            needed = lease.reserved.at_most(whole + uncounted)
            if needed != lease.reserved:
                self._leases.shrink(lease, needed)

    async def give_back(self, lines: Sequence[BillingLine] = ()) -> None:
        """End it with what was used. A second time changes nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._leases.give_back(lease, lines)
