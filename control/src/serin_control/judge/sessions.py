"""Which sessions were seen before, in bounded memory however many there are.

A Bloom filter (Bloom 1970) of two generations: the older is forgotten when the younger is full or old. It may take a
new session for a seen one, which drops that session, whatever happened in it; it never counts one twice while it
remembers it.
"""

import base64
import zlib
from typing import Any

NUM_BITS = 1 << 17
MAX_SESSIONS = NUM_BITS // 6
_INDEX = NUM_BITS - 1
_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15


class SeenSessions:
    """Sessions by their opaque numbers. ``keep_s``: how long a generation is young; 0: until it is full."""

    def __init__(self, keep_s: float = 0.0) -> None:
        self._keep_s = keep_s
        self._young = bytearray(NUM_BITS // 8)
        self._old = bytearray(NUM_BITS // 8)
        self._num_young = 0
        self._young_since: float | None = None

    def recently(self, session: int, at: float) -> bool:
        """Whether it was added to the young generation, or, where generations do not age, to any."""
        self._age(at)
        probes = _probes(session)
        return _holds(self._young, probes) or (not self._keep_s and _holds(self._old, probes))

    def ever(self, session: int) -> bool:
        """Whether it was added and is not forgotten."""
        probes = _probes(session)
        return _holds(self._young, probes) or _holds(self._old, probes)

    def add(self, session: int, at: float) -> None:
        """Remember it."""
        self._age(at)
        for bit in _probes(session):
            self._young[bit >> 3] |= 1 << (bit & 7)
        self._num_young += 1

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "young": _packed(self._young),
            "old": _packed(self._old),
            "num_young": self._num_young,
            "young_since": self._young_since,
        }

    @classmethod
    def load(cls, keep_s: float, dumped: dict[str, Any]) -> "SeenSessions":
        """What :meth:`dump` gave."""
        seen = cls(keep_s)
        seen._young, seen._old = _unpacked(dumped["young"]), _unpacked(dumped["old"])
        seen._num_young, seen._young_since = dumped["num_young"], dumped["young_since"]
        return seen

    def _age(self, at: float) -> None:
        if self._young_since is None:
            self._young_since = at
        aged = self._keep_s > 0 and at - self._young_since >= self._keep_s
        if aged or self._num_young >= MAX_SESSIONS:
            self._old, self._young = self._young, bytearray(NUM_BITS // 8)
            self._num_young, self._young_since = 0, at


def _probes(session: int) -> tuple[int, int, int]:
    mixed = (session + 1) * _ODD & _MASK
    mixed = (mixed ^ mixed >> 29) * _ODD & _MASK
    return mixed >> 47, mixed >> 30 & _INDEX, mixed >> 13 & _INDEX


def _holds(bits: bytearray, probes: tuple[int, int, int]) -> bool:
    first, second, third = probes
    return bool(
        bits[first >> 3] >> (first & 7) & bits[second >> 3] >> (second & 7) & bits[third >> 3] >> (third & 7) & 1
    )


def _packed(bits: bytearray) -> str:
    return base64.b64encode(zlib.compress(bits)).decode()


def _unpacked(text: str) -> bytearray:
    return bytearray(zlib.decompress(base64.b64decode(text)))
