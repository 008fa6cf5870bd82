"""Remembers finished requests: in a bounded queue first, from there to the store, off every request's path.

Knows nothing about Redis, nor about what records are for.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from serin_gateway.observing.record import RequestRecord
from serin_gateway.observing.records import RecordsDown, RecordStore
from serin_gateway.observing.retention import Retention
from serin_gateway.receipt import Receipt

WRITE_EVERY_S = 0.2
AT_ONCE = 256
"""Records written in one go; between two goes others get their turn."""
MAX_WAITING = 8192
MAX_REQUEST_ID = 128

_Waiting = tuple[Receipt, int, float]


class RecordKeeper:
    """Keeps records; `keep_writing` is a task of whoever owns it.

    Args:
        store: where records are kept.
        most: records that this gateway keeps there at a time, about; 0: none.
        clock: Unix seconds.
    """

    def __init__(self, store: RecordStore, most: int, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._retention = Retention(most)
        self._is_on = most > 0
        self._clock = clock
        self._waiting: OrderedDict[tuple[str, str], _Waiting] = OrderedDict()
        self._num_new = 0
        self.num_dropped = 0
        """Records that were lost, because too many waited or the store was down."""

    def keep(self, receipt: Receipt, session: int) -> None:
        """Remember a request that is over, if anybody could ask about it: one of a known tenant, that did something."""
        has_content = bool(receipt.attempts) or receipt.reason != "ok"
        if not (self._is_on and receipt.tenant and has_content) or len(receipt.request_id) > MAX_REQUEST_ID:
            return
        self._num_new += 1
        self._waiting[receipt.request_id, receipt.tenant] = (receipt, session, self._clock())
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            self.num_dropped += 1

    async def find(self, tenant: str, request_id: str) -> RequestRecord | None:
        """What is known of a tenant's request.

        Raises:
            RecordsDown: that cannot be said now.
        """
        waiting = self._waiting.get((request_id, tenant))
        if waiting is not None:
            return RequestRecord.of(*waiting)
        found = await self._store.find(request_id)
        return next((record for record in found if record.tenant == tenant), None)

    async def claim_feedback(self, tenant: str, request_id: str) -> bool:
        """Whether this is the first feedback on a tenant's request.

        Raises:
            RecordsDown: that cannot be said now.
        """
        return await self._store.claim_feedback(tenant, request_id)

    async def keep_writing(self) -> None:
        """Write what waits, for as long as this task lives, and once more at its end."""
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                await self.write()
        finally:
            await self.write()

    async def write(self) -> None:
        """Write everything that waits."""
        ttl_s = self._retention.ttl_s(self._num_new, time.monotonic())
        self._num_new = 0
        while self._waiting:
            some = [self._waiting.popitem(last=False) for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await self._store.put([RequestRecord.of(*waiting) for _, waiting in some], ttl_s)
            except RecordsDown:
                self.num_dropped += len(some)
                return  # the others wait for the next time
            except asyncio.CancelledError:
                self._waiting.update(some)  # the last write, at the end, has them again
                raise
