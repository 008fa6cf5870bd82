"""One entry of the audit log, and the chain that entries form.

Each entry's digest is keyed (HMAC-SHA256, by a secret derived from the mesh's) and covers the entry and the digest of
the one before; so who can write to the store, and does not hold the secret, cannot forge one. Knows nothing about where
entries are kept; it never holds prompt text or keys.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

_HEAD = re.compile("(0|[1-9][0-9]{0,17}):([0-9a-f]{64})")
GENESIS = "0" * 64
"""What the first entry names as the one before."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act.

    Attributes:
        number: 1 for the first entry.
        at: Unix seconds.
        actor: who: a key's public name, a token's issuer and subject, or the user of the command line.
        action: what, ``key.create``.
        target: on what.
        outcome: ``begun``, ``done``, or ``failed: why``.
        facts: what else there is to know, by name.
        previous, digest: of the entry before, and its own.
    """

    number: int
    at: float
    actor: str
    action: str
    target: str
    outcome: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    previous: str = GENESIS
    digest: str = ""

    def sealed(self, secret: bytes) -> "Entry":
        """The same with its digest."""
        return replace(self, digest=self._digest(secret))

    def is_intact(self, secret: bytes) -> bool:
        """Whether nothing of it was changed."""
        return hmac.compare_digest(self.digest, self._digest(secret))

    def to_json(self) -> str:
        """As it is stored."""
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Entry":
        """Read it back.

        Raises:
            ValueError: not an entry.
        """
        try:
            return cls(**orjson.loads(text))
        except TypeError as error:
            raise ValueError(f"not an audit entry: {error}") from error

    def _digest(self, secret: bytes) -> str:
        sealed = orjson.dumps(replace(self, digest=""), option=orjson.OPT_SORT_KEYS)
        return hmac.new(secret, sealed, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends."""

    number: int = 0
    digest: str = GENESIS

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read it back as it is written.

        Raises:
            ValueError: it is none.
        """
        found = _HEAD.fullmatch(text)
        if found is None:
            raise ValueError(f"not the head of an audit log: {text[:80]!r}")
        return cls(int(found[1]), found[2])


def audit_secret(mesh_secret: bytes) -> bytes:
    """The secret that entries are sealed with, derived from the mesh's."""
    return hmac.new(mesh_secret, b"serin.audit", hashlib.sha256).digest()


def has_been(noted: Head, entries: Sequence[Entry | None]) -> bool:
    """Whether a chain once ended where a noted head says; at that of an empty log every chain begins."""
    if noted.number == 0:
        return noted == Head()
    known = entries[noted.number - 1] if noted.number <= len(entries) else None
    return known is not None and known.digest == noted.digest


def find_faults(entries: Iterable[Entry | None], head: Head, secret: bytes) -> list[str]:
    """Everything that is wrong with a chain; None is an entry that cannot be read.

    What was cut off at the end shows in the head; who restores an older head too is found out by one noted elsewhere.
    """
    faults = []
    number, digest = 0, GENESIS
    for entry in entries:
        number += 1
        if entry is None:
            faults.append(f"entry {number} cannot be read")
            digest = ""
            continue
        if not entry.is_intact(secret):
            faults.append(f"entry {number} was changed")
        if entry.number != number:
            faults.append(f"entry {number} calls itself {entry.number}: one was removed, added or reordered before it")
        if digest and entry.previous != digest:
            faults.append(f"entry {number} does not follow the one before it")
        digest = entry.digest
    if (number, digest) != (head.number, head.digest):
        faults.append(f"the chain ends at entry {number}, and entry {head.number} was the last one written")
    return faults
