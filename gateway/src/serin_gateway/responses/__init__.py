"""Responses that are kept for those who continue, read or delete them later.

A `ResponseStore` keeps them by project; a `ResponseDesk` says what becomes of a store that is away or full, in words
for callers.
"""

from serin_gateway.responses.desk import ResponseDesk
from serin_gateway.responses.redis_store import RedisResponses
from serin_gateway.responses.store import MemoryResponses, ResponsesDown, ResponseStore

__all__ = ["MemoryResponses", "RedisResponses", "ResponseDesk", "ResponseStore", "ResponsesDown"]
