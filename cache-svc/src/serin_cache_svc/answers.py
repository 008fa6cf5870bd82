"""Stored answers: exact matches of deterministic requests, within a budget; what is damaged or unknown is a miss.

Knows nothing about protobuf, Redis or gRPC: an answer is bytes, the store is whatever implements the protocol.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from serin_mesh.breaker import BreakerState, CircuitBreaker, Unavailable

from serin_cache_svc.asked import Asked
from serin_cache_svc.errors import NotDeterministic, StoreDown
from serin_cache_svc.formats import Formats, key

CHECKSUM_BYTES = 16
PURGE_TAG = b"serin.cache.group"


class AnswerStore(Protocol):
    """Keeps values for a while, or forgets them earlier.

    Every method raises ``StoreDown`` when the store does not answer.
    """

    async def get(self, group_tag: str, key: str) -> bytes | None:
        """The value, if it is there."""
        ...

    async def put(self, group_tag: str, key: str, value: bytes, ttl_s: int) -> None:
        """Keep a value for ``ttl_s`` seconds."""
        ...

    async def purge(self, group_tag: str) -> int:
        """Delete every value of a group; returns how many there were."""
        ...

    async def ping(self) -> None:
        """Find out whether the store answers."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Bounds of what is kept.

    Attributes:
        default_ttl_s: seconds an answer is kept when nobody says.
        max_ttl_s: most seconds it is kept.
        max_bytes: size of the largest answer that is kept.
    """

    default_ttl_s: int = 3600
    max_ttl_s: int = 604_800
    max_bytes: int = 1 << 20


class Answers:
    """Answers of all groups, each in a namespace of its own.

    A value is a byte that names its format, a checksum, and the answer.
    """

    def __init__(
        self,
        store: AnswerStore,
        breaker: CircuitBreaker,
        secret: bytes,
        limits: AnswerLimits,
        formats: Formats | None = None,
    ) -> None:
        self._store = store
        self._breaker = breaker
        self._secret = secret
        self.limits = limits
        self.formats = formats or Formats()

    async def recall(self, asked: Asked) -> bytes | None:
        """The answer to an equal request, or None: never stored, forgotten, damaged, or in a format that is not read.

        Raises:
            StoreDown: the store is down or slow, so nobody can say.
        """
        if not asked.is_deterministic or not asked.cache_group:
            return None
        digest = asked.digest(self._secret)
        try:
            return await self._breaker.call(lambda: self._find(self.group_tag(asked.cache_group), digest))
        except Unavailable as error:
            raise StoreDown(str(error)) from error

    async def put(self, asked: Asked, answer: bytes, ttl_s: int) -> bool:
        """Store an answer; False if the store is down or slow, the answer too large, or the request nobody's.

        Raises:
            NotDeterministic: another run might answer differently.
        """
        if not asked.is_deterministic:
            raise NotDeterministic("only deterministic answers are kept: temperature 0, or a seed")
        if not asked.cache_group or len(answer) > self.limits.max_bytes:
            return False
        digest = asked.digest(self._secret)
        tag = self.group_tag(asked.cache_group)
        at, value = key(self.formats.written, digest), self._seal(digest, answer)
        keep_s = min(ttl_s or self.limits.default_ttl_s, self.limits.max_ttl_s)
        try:
            await self._breaker.call(lambda: self._store.put(tag, at, value, keep_s))
        except Unavailable:
            return False
        return True

    async def purge(self, cache_group: str) -> int:
        """Delete every answer of a group, whatever its salt and KV digest. Not bound by the budget.

        Raises:
            StoreDown: not all of them could be deleted.
        """
        return await self._store.purge(self.group_tag(cache_group))

    async def is_available(self) -> bool:
        """Whether the store answers within its budget now."""
        try:
            await self._breaker.call(self._store.ping)
        except Unavailable:
            return False
        return self._breaker.state is BreakerState.CLOSED

    def group_tag(self, cache_group: str) -> str:
        """Name of a group in the store and in logs; tells nothing to those without the mesh secret."""
        mac = hmac.new(self._secret, PURGE_TAG + cache_group.encode(), hashlib.sha256)
        return mac.digest()[:CHECKSUM_BYTES].hex()

    async def _find(self, tag: str, digest: bytes) -> bytes | None:
        for number in self.formats.read:
            value = await self._store.get(tag, key(number, digest))
            answer = None if value is None else self._open(number, digest, value)
            if answer is not None:
                return answer
        return None

    def _seal(self, digest: bytes, answer: bytes) -> bytes:
        return bytes([self.formats.written]) + self._checksum(digest, answer) + answer

    def _open(self, number: int, digest: bytes, value: bytes) -> bytes | None:
        checksum, answer = value[1 : 1 + CHECKSUM_BYTES], value[1 + CHECKSUM_BYTES :]
        if value[:1] != bytes([number]) or not hmac.compare_digest(checksum, self._checksum(digest, answer)):
            return None
        return answer

    def _checksum(self, digest: bytes, answer: bytes) -> bytes:
        """Over key and answer, keyed: neither damage nor a value under another key nor a forged one passes."""
        key = hashlib.sha256(self._secret).digest()
        return hashlib.blake2b(digest + answer, digest_size=CHECKSUM_BYTES, key=key).digest()
