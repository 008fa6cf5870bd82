"""Deletes everything that belongs to a cache group, everywhere, and gives a receipt.

Knows who holds what; nothing about gRPC.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serin_cache_svc.answers import Answers
from serin_cache_svc.errors import CacheError
from serin_cache_svc.fleet import Fleet, Worker


class WorkerUnreached(CacheError):
    """A worker did not answer."""


PurgeWorker = Callable[[Worker, str], Awaitable[int]]
"""Makes a worker forget a group's blocks; gives how many, or raises ``WorkerUnreached``."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a purge deleted.

    Attributes:
        receipt_id: its name in the log.
        num_answers: answers deleted.
        num_blocks: KV blocks forgotten by workers.
        unreached: endpoints of workers that did not answer.
    """

    receipt_id: str
    num_answers: int
    num_blocks: int
    unreached: tuple[str, ...]


async def purge(cache_group: str, answers: Answers, fleet: Fleet, purge_worker: PurgeWorker) -> Receipt:
    """Purge a group; workers are asked even when the answers cannot be deleted.

    Raises:
        StoreDown: not all answers could be deleted.
        WorkersUnknown: nobody has said yet which workers there are; nothing was deleted.
    """
    workers = sorted(fleet.everybody, key=lambda worker: worker.endpoint)
    answered = asyncio.gather(*(purge_worker(worker, cache_group) for worker in workers), return_exceptions=True)
    try:
        num_answers = await answers.purge(cache_group)
    finally:
        results = await answered
    unreached = []
    num_blocks = 0
    for worker, result in zip(workers, results, strict=True):
        if isinstance(result, WorkerUnreached):
            unreached.append(worker.endpoint)
        elif isinstance(result, BaseException):
            raise result
        else:
            num_blocks += result
    return Receipt(f"purge-{secrets.token_hex(12)}", num_answers, num_blocks, tuple(unreached))
