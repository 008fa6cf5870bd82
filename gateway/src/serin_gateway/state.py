"""The state Redis as a gateway uses it: a client that fails fast, keys and limits on top of it.

Knows nothing about requests.
"""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from serin_mesh.breaker import CircuitBreaker, Unavailable

from serin_gateway.keys import KeyRecord, KeyStore, KeyStoreDown
from serin_gateway.limits.fallback import REDIS_FAILURES

BUDGET_S = 0.05
CONNECT_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 64


class StateUnsafe(Exception):
    """The state Redis would lose or evict what is kept in it; the message says which setting to change."""


def open_state(url: str) -> Redis:
    """A client that neither retries nor waits: whoever calls has a budget."""
    return Redis.from_url(
        url,
        socket_timeout=CONNECT_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=MAX_CONNECTIONS,
    )


def state_breaker(name: str) -> CircuitBreaker:
    """A breaker for calls of the state Redis."""
    return CircuitBreaker(name, failures=(*REDIS_FAILURES, KeyStoreDown), budget_s=BUDGET_S)


async def check_state(redis: Redis) -> bool:
    """Whether the state Redis is there.

    Raises:
        StateUnsafe: it is, and it may evict or lose keys and budgets.
    """
    try:
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
        append_only = (await redis.config_get("appendonly")).get("appendonly")
    except ResponseError:
        return True  # a managed Redis that does not show its settings
    except REDIS_FAILURES:
        return False
    for name, value, needed in (("maxmemory-policy", policy, "noeviction"), ("appendonly", append_only, "yes")):
        if value != needed:
            raise StateUnsafe(f"--state-redis: {name} is {value!r}: accepted: {needed!r}")
    return True


class BudgetedKeyStore:
    """A key store whose look-ups keep to a budget."""

    def __init__(self, store: KeyStore, breaker: CircuitBreaker) -> None:
        self._store = store
        self._breaker = breaker

    async def create(self, record: KeyRecord) -> None:
        """Keep a new key."""
        await self._store.create(record)

    async def list(self) -> Sequence[KeyRecord]:
        """All keys."""
        return await self._store.list()

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke by public name."""
        return await self._store.revoke(key_id)

    async def lookup(self, digest: str) -> KeyRecord | None:
        """The key with this digest, quickly or not at all."""
        try:
            return await self._breaker.call(lambda: self._store.lookup(digest))
        except Unavailable as error:
            raise KeyStoreDown(str(error)) from error
