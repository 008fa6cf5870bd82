"""Kept responses in the state Redis, shared by all gateways.

``serin:{org}:response:<tenant>:<conversation>`` is a conversation's responses; ``serin:{org}:responses:<tenant>`` has
the tenant's conversations by last use, ``…:bytes`` their sizes; the tenant is a digest of its name. All end by
themselves. Knows nothing about requests; a slow or dead Redis becomes :class:`ResponsesDown` within the budget.
"""

from collections.abc import Awaitable
from hashlib import blake2b
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import Redis

from serin_gateway.redis_calls import in_time
from serin_gateway.responses.identifier import conversation_of
from serin_gateway.responses.store import (
    RECORD_OVERHEAD_BYTES,
    Bounds,
    Kept,
    ResponsesDown,
    StoredConversation,
    StoredResponse,
    Turn,
    Walk,
)

T = TypeVar("T")


class RedisResponses:
    """Responses in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._script = redis.register_script(files(__package__).joinpath("responses.lua").read_text())
        self._prefix = f"serin:{{{organization}}}:response"
        self._timeout_s = timeout_s

    async def reach(self) -> None:
        """Whether it is there."""
        await self._answer(self._redis.ping())

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response."""
        one = response
        state: bytes = await self._run(
            tenant,
            one.response_id,
            "put",
            self._trees(tenant),
            conversation_of(one.response_id),
            one.response_id,
            one.previous_id,
            one.head,
            one.output,
            one.input,
            one.session,
            round(bounds.ttl_s * 1000),
            bounds.max_bytes,
            RECORD_OVERHEAD_BYTES,
        )
        return Kept(state.decode())

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output."""
        head, output = await self._members(tenant, response_id, "head", "output")
        return None if head is None or output is None else (head, output)

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Input items."""
        head, items = await self._members(tenant, response_id, "head", "input")
        return None if head is None else items

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> StoredConversation:
        """A conversation."""
        state, *found = await self._run(tenant, response_id, "walk", response_id, max_turns, max_bytes)
        if not found:
            return StoredConversation(Walk(state.decode()))
        session, *items = found
        turns = [Turn(items[at], items[at + 1]) for at in range(0, len(items), 2)]
        return StoredConversation(Walk.FOUND, turns[::-1], session.decode())

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response."""
        return bool(await self._run(tenant, response_id, "delete", conversation_of(response_id), response_id))

    async def _members(self, tenant: str, response_id: str, *names: str) -> list[bytes | None]:
        tree = self._trees(tenant) + conversation_of(response_id)
        call: Any = self._redis.hmget(tree, [f"{response_id} {name}" for name in names])
        found: list[bytes | None] = await self._answer(call)
        return found

    async def _run(self, tenant: str, response_id: str, *arguments: str | bytes | int) -> Any:
        index = f"{self._prefix}s:{_digest(tenant)}"
        keys = [self._trees(tenant) + conversation_of(response_id), index, f"{index}:bytes"]
        return await self._answer(self._script(keys, list(arguments)))

    def _trees(self, tenant: str) -> str:
        return f"{self._prefix}:{_digest(tenant)}:"

    async def _answer(self, call: Awaitable[T]) -> T:
        return await in_time(call, self._timeout_s, ResponsesDown)


def _digest(tenant: str) -> str:
    return blake2b(tenant.encode(), digest_size=16).hexdigest()
