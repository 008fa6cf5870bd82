"""Answers in memory: the twin of the cache Redis, for tests and for whoever wants a mesh without Redis."""

import time
from collections import OrderedDict
from collections.abc import Callable

from serin_cache_svc.errors import StoreDown


class MemoryAnswerStore:
    """Keeps the newest ``max_values`` values of this process.

    Attributes:
        down: while True every call raises ``StoreDown``.
    """

    def __init__(self, max_values: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._values: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._max_values = max_values
        self._clock = clock
        self.down = False

    async def get(self, group_tag: str, key: str) -> bytes | None:
        """The value, if it is there."""
        await self.ping()
        found = self._values.get((group_tag, key))
        if found is None or found[0] <= self._clock():
            return None
        self._values.move_to_end((group_tag, key))
        return found[1]

    async def put(self, group_tag: str, key: str, value: bytes, ttl_s: int) -> None:
        """Keep a value for ``ttl_s`` seconds."""
        await self.ping()
        self._values[group_tag, key] = (self._clock() + ttl_s, value)
        self._values.move_to_end((group_tag, key))
        while len(self._values) > self._max_values:
            self._values.popitem(last=False)

    async def purge(self, group_tag: str) -> int:
        """Delete every value of a group; returns how many there were."""
        await self.ping()
        keys = [key for key in self._values if key[0] == group_tag]
        for key in keys:
            del self._values[key]
        return len(keys)

    async def ping(self) -> None:
        """Find out whether the store answers."""
        if self.down:
            raise StoreDown("the store is down")
