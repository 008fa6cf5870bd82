"""Where records of finished requests are kept: the seam, and its twin in memory.

Knows nothing about Redis.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from serin_gateway.observing.record import RequestRecord

MAX_IN_MEMORY = 10_000


class RecordsDown(Exception):
    """The store did not answer in time."""


class RecordStore(Protocol):
    """Keeps records for a while. Every method may raise :class:`RecordsDown`."""

    async def put(self, records: Sequence[RequestRecord], ttl_s: int) -> None:
        """Keep records for so long; one of the same tenant under the same identifier is replaced."""

    async def find(self, request_id: str) -> Sequence[RequestRecord]:
        """The records of an identifier; callers choose identifiers, so several tenants may have used the same."""

    async def claim_feedback(self, tenant: str, request_id: str) -> bool:
        """Whether this is the first feedback on a tenant's request; from now on there was one."""


class MemoryRecords:
    """Records of one process, the latest 10,000. ``down`` makes every call fail."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], RequestRecord] = OrderedDict()
        self._claimed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.down = False

    async def put(self, records: Sequence[RequestRecord], ttl_s: int) -> None:
        """Keep records."""
        self._check_up()
        for record in records:
            self._records[record.request_id, record.tenant] = record
            self._records.move_to_end((record.request_id, record.tenant))
        while len(self._records) > MAX_IN_MEMORY:
            self._records.popitem(last=False)

    async def find(self, request_id: str) -> Sequence[RequestRecord]:
        """The records of an identifier."""
        self._check_up()
        return [record for (found, _), record in self._records.items() if found == request_id]

    async def claim_feedback(self, tenant: str, request_id: str) -> bool:
        """Whether this is the first."""
        self._check_up()
        is_first = (tenant, request_id) not in self._claimed
        self._claimed[tenant, request_id] = None
        while len(self._claimed) > MAX_IN_MEMORY:
            self._claimed.popitem(last=False)
        return is_first

    def _check_up(self) -> None:
        if self.down:
            raise RecordsDown("the records are down")
