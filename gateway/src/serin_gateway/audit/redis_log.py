"""The audit log in the state Redis, shared by all gateways and the command line.

``serin:{org}:audit`` is a list of entries as JSON, ``serin:{org}:audit-head`` where it ends. An entry is added only
behind the one that it names; who was overtaken tries again. Knows nothing about requests; a slow or dead Redis becomes
`KeyStoreDown` within the budget.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from serin_gateway.audit.entry import Entry, Head
from serin_gateway.keys.store import KeyStoreDown
from serin_gateway.redis_calls import in_time

MAX_TRIES = 50
_APPEND = """
if (redis.call("GET", KEYS[2]) or "") ~= ARGV[1] then return 0 end
redis.call("RPUSH", KEYS[1], ARGV[2])
redis.call("SET", KEYS[2], ARGV[3])
return 1
"""


class RedisAuditLog:
    """Entries in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        secret: what entries are sealed with.
        organization: hash tag of the keys.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, secret: bytes, *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._secret = secret
        self._timeout_s = timeout_s
        self._names = [f"serin:{{{organization}}}:audit", f"serin:{{{organization}}}:audit-head"]
        self._append = redis.register_script(_APPEND)

    async def append(self, at: float, actor: str, action: str, target: str, outcome: str, **facts: Any) -> Entry:
        """Add an entry behind the last one, whoever else does the same."""
        for _ in range(MAX_TRIES):
            before = await self._head_text()
            head = _head(before)
            entry = Entry(head.number + 1, at, actor, action, target, outcome, facts, head.digest).sealed(self._secret)
            after = str(Head(entry.number, entry.digest))
            if await self._answer(self._append(self._names, [before, entry.to_json(), after])):
                return entry
        raise KeyStoreDown(f"the audit log changed {MAX_TRIES} times while an entry was to be added")

    async def entries(self, first: int = 1, count: int = 1_000_000_000) -> Sequence[Entry | None]:
        """Some entries."""
        texts = await self._answer(self._redis.lrange(self._names[0], first - 1, first + count - 2))
        return [_entry(text) for text in texts]

    async def head(self) -> Head:
        """Where the chain ends."""
        return _head(await self._head_text())

    async def _head_text(self) -> str:
        text = await self._answer(self._redis.get(self._names[1]))
        return text.decode() if text else ""

    async def _answer(self, call: Any) -> Any:
        return await in_time(call, self._timeout_s, KeyStoreDown)


def _head(text: str) -> Head:
    number, _, digest = text.partition(":")
    return Head(int(number), digest) if number.isdecimal() else Head()


def _entry(text: bytes) -> Entry | None:
    try:
        return Entry.from_json(text)
    except ValueError:
        return None
