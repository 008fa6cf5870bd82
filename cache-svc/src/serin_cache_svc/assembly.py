"""The parts of one cache, put together. Knows which parts there are and in which order they start and end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serin_mesh.breaker import CircuitBreaker
from serin_mesh.channels import ChannelSettings

from serin_cache_svc.answers import AnswerLimits, Answers, AnswerStore
from serin_cache_svc.errors import StoreDown
from serin_cache_svc.fleet import Fleet, Workers
from serin_cache_svc.prefix_index import PrefixIndex
from serin_cache_svc.service import CacheService
from serin_cache_svc.tally import Tally
from serin_cache_svc.worker_purge import WorkerPurge
from serin_cache_svc.worker_watch import WorkerWatch


@dataclass(frozen=True)
class Cache:
    """The parts of a running cache."""

    service: CacheService
    index: PrefixIndex
    fleet: Fleet
    tally: Tally


@asynccontextmanager
async def assembled(
    store: AnswerStore,
    workers: AsyncIterator[Workers],
    settings: ChannelSettings,
    *,
    secret: bytes,
    budget_s: float = 0.05,
    limits: AnswerLimits | None = None,
) -> AsyncIterator[Cache]:
    """A cache that answers and watches the workers, while it is entered."""
    index, tally = PrefixIndex(), Tally()
    breaker = CircuitBreaker("cache-redis", failures=(StoreDown,), budget_s=budget_s)
    answers = Answers(store, breaker, secret, limits or AnswerLimits())
    fleet = Fleet(WorkerWatch(index, settings).watch)
    following = asyncio.create_task(fleet.follow(workers), name="follow workers")
    try:
        yield Cache(CacheService(answers, index, fleet, WorkerPurge(settings), secret, tally), index, fleet, tally)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
