"""The cache log as a stream of protobuf messages: a snapshot first, then every change, numbered without gaps.

Knows nothing about who watches.
"""

import asyncio
from collections.abc import AsyncIterator

from serin.worker.v1 import worker_pb2
from serin_mesh.errors import MeshError, Reason

from serin_worker.cache_log import CacheEvent, CacheLog

KEYS_PER_PART = 4096


async def watch(
    log: CacheLog, *, epoch: str, block_size: int, kv_digest: str
) -> AsyncIterator[worker_pb2.WatchCacheResponse]:
    """Follow a log until the watcher goes away.

    Raises:
        MeshError: the watcher fell so far behind that changes are forgotten; it must watch anew.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def notice() -> None:
        loop.call_soon_threadsafe(changed.set)

    stop = log.listen(notice)
    try:
        number, keys = log.snapshot()
        sequence_number = 0
        for part in _snapshot_parts(sorted(keys), block_size, kv_digest):
            yield worker_pb2.WatchCacheResponse(sequence_number=sequence_number, epoch=epoch, snapshot=part)
            sequence_number += 1
        while True:
            changed.clear()
            events = log.since(number)
            if events is None:
                raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "this watch fell behind the cache's changes; watch again")
            for event in events:
                yield _change(event, sequence_number, epoch)
                sequence_number += 1
                number = event.number
            if not events:
                await changed.wait()
    finally:
        stop()


def _snapshot_parts(keys: list[bytes], block_size: int, kv_digest: str) -> list[worker_pb2.BlocksSnapshot]:
    starts = range(0, max(len(keys), 1), KEYS_PER_PART)
    return [
        worker_pb2.BlocksSnapshot(
            block_keys=keys[start : start + KEYS_PER_PART],
            complete=start + KEYS_PER_PART >= len(keys),
            block_size=block_size,
            kv_digest=kv_digest,
        )
        for start in starts
    ]


def _change(event: CacheEvent, sequence_number: int, epoch: str) -> worker_pb2.WatchCacheResponse:
    if event.kind == "stored":
        stored = worker_pb2.BlocksStored(block_keys=event.keys)
        return worker_pb2.WatchCacheResponse(sequence_number=sequence_number, epoch=epoch, stored=stored)
    removed = worker_pb2.BlocksRemoved(block_keys=event.keys)
    return worker_pb2.WatchCacheResponse(sequence_number=sequence_number, epoch=epoch, removed=removed)
