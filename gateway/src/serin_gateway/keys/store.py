"""Where keys are kept: the seam, and its twin in memory.

Knows nothing about digests' making (the caller brings them) nor about Redis.
"""

import time
from collections.abc import Sequence
from typing import Protocol

from serin_gateway.keys.records import KeyRecord


class KeyStoreDown(Exception):
    """The store did not answer in time; whether a key exists is unknown."""


class KeyNotFound(Exception):
    """No key has this public name."""


class KeyStore(Protocol):
    """Keeps key records. Every method may raise :class:`KeyStoreDown`."""

    async def create(self, record: KeyRecord) -> None:
        """Keep a new key."""

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, revoked ones too, oldest first."""

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke by public name; revoking twice changes nothing.

        Raises:
            KeyNotFound: there is no such key.
        """

    async def lookup(self, digest: str) -> KeyRecord | None:
        """The key with this digest, revoked or not."""


class MemoryKeyStore:
    """Keys of one process: for tests, and for trying things out. ``down`` makes every call fail."""

    def __init__(self, *records: KeyRecord) -> None:
        self._records = {record.digest: record for record in records}
        self.down = False

    async def create(self, record: KeyRecord) -> None:
        """Keep a new key."""
        self._check_up()
        self._records[record.digest] = record

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, oldest first."""
        self._check_up()
        return sorted(self._records.values(), key=lambda record: record.created_at)

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke by public name."""
        for record in await self.list():
            if record.key_id == key_id:
                self._records[record.digest] = record.revoked(time.time())
                return self._records[record.digest]
        raise KeyNotFound(f"no key is named {key_id!r}; `serin key list` shows all names")

    async def lookup(self, digest: str) -> KeyRecord | None:
        """The key with this digest."""
        self._check_up()
        return self._records.get(digest)

    def _check_up(self) -> None:
        if self.down:
            raise KeyStoreDown("the key store is down")
