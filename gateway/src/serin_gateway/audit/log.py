"""Where audit entries are kept: the seam, and its twin in memory. Knows nothing about Redis."""

from collections.abc import Sequence
from typing import Any, Protocol

from serin_gateway.audit.entry import Entry, Head


class AuditLog(Protocol):
    """Keeps entries, in order, for good. Every method may raise `KeyStoreDown`."""

    async def append(self, at: float, actor: str, action: str, target: str, outcome: str, **facts: Any) -> Entry:
        """Add an entry behind the last one."""

    async def entries(self, first: int = 1, count: int = 1_000_000_000) -> Sequence[Entry | None]:
        """Some entries, from a number on; None: one that cannot be read."""

    async def head(self) -> Head:
        """Where the chain ends."""


class MemoryAuditLog:
    """Entries of one process."""

    def __init__(self, secret: bytes = b"") -> None:
        self._secret = secret
        self._entries: list[Entry] = []

    async def append(self, at: float, actor: str, action: str, target: str, outcome: str, **facts: Any) -> Entry:
        """Add an entry."""
        head = await self.head()
        entry = Entry(head.number + 1, at, actor, action, target, outcome, facts, head.digest).sealed(self._secret)
        self._entries.append(entry)
        return entry

    async def entries(self, first: int = 1, count: int = 1_000_000_000) -> Sequence[Entry | None]:
        """Some entries."""
        return self._entries[first - 1 : first - 1 + count]

    async def head(self) -> Head:
        """Where the chain ends."""
        return Head(self._entries[-1].number, self._entries[-1].digest) if self._entries else Head()
