"""The state Redis as a gateway uses it: a client that fails fast, keys and limits on top of it.

Knows nothing about requests.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from serin_mesh.breaker import BreakerState, CircuitBreaker, Unavailable

from serin_gateway.keys import KeyRecord, KeyStore, KeyStoreDown
from serin_gateway.limits.fallback import REDIS_FAILURES
from serin_gateway.observing.record import RequestRecord
from serin_gateway.observing.records import RecordsDown, RecordStore
from serin_gateway.responses.store import Bounds, Kept, ResponsesDown, ResponseStore, StoredConversation, StoredResponse

T = TypeVar("T")

BUDGET_S = 0.05
ON_TIME_S = 0.01
MAX_LATENESS_S = 0.5
CONNECT_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 16


class StateUnsafe(Exception):
    """The state Redis would lose or evict what is kept in it; the message says which setting to change."""


def open_state(url: str, *, longest_call_s: float = CONNECT_TIMEOUT_S) -> Redis:
    """A client that does not retry, with few connections that are waited for: whoever calls has a budget."""
    socket_timeout_s = max(CONNECT_TIMEOUT_S, longest_call_s)
    pool = BlockingConnectionPool.from_url(
        url,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=MAX_CONNECTIONS,
        timeout=CONNECT_TIMEOUT_S,
    )
    return Redis.from_pool(pool)


class StateCalls:
    """Calls of the state Redis: each has a budget, and after failures in a row none is made for a while.

    Args:
        name: what is asked for, for messages.
        budget_s: seconds a call may take as long as Redis is not known to be away. Whether it is back is looked at
            with the usual budget, whatever this is: one request waits for that at a time.
    """

    def __init__(self, name: str, budget_s: float = BUDGET_S) -> None:
        self._budget_s = budget_s
        failures = (*REDIS_FAILURES, KeyStoreDown, RecordsDown, ResponsesDown)
        self._breaker = CircuitBreaker(name, failures=failures, budget_s=budget_s + MAX_LATENESS_S)

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's result.

        Raises:
            Unavailable: not tried, failed, or too slow.
        """
        is_trial = self._breaker.state is BreakerState.HALF_OPEN
        budget_s = min(self._budget_s, BUDGET_S) if is_trial else self._budget_s
        return await self._breaker.call(lambda: self._within(budget_s, operation))

    async def _within(self, budget_s: float, operation: Callable[[], Awaitable[T]]) -> T:
        """A budget that our own lateness does not count against: when the clock rang late, it was us who were busy."""
        task = asyncio.ensure_future(operation())
        try:
            began = time.monotonic()
            await asyncio.wait((task,), timeout=budget_s)
            late_s = time.monotonic() - began - budget_s
            if not task.done() and late_s > ON_TIME_S:
                await asyncio.wait((task,), timeout=min(2 * late_s, MAX_LATENESS_S))
            if task.done():
                return task.result()
            raise TimeoutError
        finally:
            task.cancel()


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

    def __init__(self, store: KeyStore, calls: StateCalls) -> None:
        self._store = store
        self._calls = calls

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
            return await self._calls.call(lambda: self._store.lookup(digest))
        except Unavailable as error:
            raise KeyStoreDown(str(error)) from error


class BudgetedRecords:
    """Records of requests whose look-ups keep to a budget. Writing them has time: no request waits for it."""

    def __init__(self, store: RecordStore, calls: StateCalls) -> None:
        self._store = store
        self._calls = calls

    async def put(self, records: Sequence[RequestRecord], ttl_s: int) -> None:
        """Keep records."""
        await self._store.put(records, ttl_s)

    async def find(self, request_id: str) -> Sequence[RequestRecord]:
        """The records of an identifier, quickly or not at all."""
        try:
            return await self._calls.call(lambda: self._store.find(request_id))
        except Unavailable as error:
            raise RecordsDown(str(error)) from error

    async def claim_feedback(self, tenant: str, request_id: str) -> bool:
        """Whether this is the first feedback on a request."""
        try:
            return await self._calls.call(lambda: self._store.claim_feedback(tenant, request_id))
        except Unavailable as error:
            raise RecordsDown(str(error)) from error


class BudgetedResponses:
    """Kept responses whose calls keep to a budget."""

    def __init__(self, store: ResponseStore, calls: StateCalls) -> None:
        self._store = store
        self._calls = calls

    async def reach(self) -> None:
        """Whether it is there."""
        await self._call(self._store.reach)

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response."""
        return await self._call(lambda: self._store.put(tenant, response, bounds))

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output."""
        return await self._call(lambda: self._store.find(tenant, response_id))

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Input items."""
        return await self._call(lambda: self._store.find_input(tenant, response_id))

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> StoredConversation:
        """A conversation."""
        return await self._call(lambda: self._store.walk(tenant, response_id, max_turns, max_bytes))

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response."""
        return await self._call(lambda: self._store.delete(tenant, response_id))

    async def _call(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._calls.call(operation)
        except Unavailable as error:
            raise ResponsesDown(str(error)) from error
