"""One worker's blocks kept up to date in the index, over its own `WatchCache` stream.

A broken stream, a missing number or a new epoch voids what was known; the next snapshot starts over. Knows the
worker's contract and nothing about prompts or answers.
"""

import asyncio
import random
from collections.abc import AsyncIterable, Callable

from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh import logs
from serin_mesh.channels import ChannelSettings, connect
from serin_mesh.errors import MeshError

from serin_cache_svc.fleet import Worker
from serin_cache_svc.prefix_index import PrefixIndex, WorkerBlocks

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0

Changes = AsyncIterable[worker_pb2.WatchCacheResponse]


class OutOfStep(Exception):
    """The stream does not follow from what was heard before."""


class WorkerWatch:
    """Watches workers, each by its own connection."""

    def __init__(self, index: PrefixIndex, settings: ChannelSettings) -> None:
        self._index = index
        self._settings = settings

    async def watch(self, worker: Worker) -> None:
        """Keep one worker's blocks up to date until cancelled; then forget it."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if await self._watch_once(worker):
                    pause_s = FIRST_PAUSE_S
            except Exception as error:  # noqa: BLE001 - one worker's nonsense must not end its watch for good
                logs.get().error("cache.watch_failed", worker=worker.endpoint, error=repr(error))
            finally:
                self._index.forget(worker.endpoint)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(MAX_PAUSE_S, 2 * pause_s)

    async def _watch_once(self, worker: Worker) -> bool:
        log = logs.get().bind(worker=worker.endpoint, model=worker.model)
        follower = Follower(self._index, worker, lambda num_blocks: log.info("cache.snapshot", blocks=num_blocks))
        async with connect(worker.endpoint, self._settings, echo_lane=False, service="worker") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            try:
                await follower.follow(stub.WatchCache(worker_pb2.WatchCacheRequest()))
            except MeshError as error:
                log.info("cache.watch_ended", reason=error.reason, message=error.message)
            except OutOfStep as error:
                log.warning("cache.out_of_step", message=str(error))
        return follower.has_snapshot


class Follower:
    """Applies one stream to the index."""

    def __init__(self, index: PrefixIndex, worker: Worker, on_snapshot: Callable[[int], None]) -> None:
        self._index = index
        self._worker = worker
        self._on_snapshot = on_snapshot
        self._parts: set[bytes] = set()
        self._next_number = 0
        self._epoch: str | None = None
        self.has_snapshot = False

    async def follow(self, changes: Changes) -> None:
        """Apply changes until the stream ends.

        Raises:
            OutOfStep: a number is missing, the epoch changed, or the snapshot came too late or twice.
        """
        async for change in changes:
            self._check_order(change)
            match change.WhichOneof("change"):
                case "snapshot":
                    self._take_part(change.snapshot)
                case "stored":
                    self._require_snapshot()
                    self._index.add(self._worker.endpoint, change.stored.block_keys)
                case "removed":
                    self._require_snapshot()
                    self._index.remove(self._worker.endpoint, change.removed.block_keys)
                case _:
                    pass  # a kind of change that a newer worker knows

    def _check_order(self, change: worker_pb2.WatchCacheResponse) -> None:
        if self._epoch is None:
            self._epoch = change.epoch
        if change.epoch != self._epoch:
            raise OutOfStep(f"the epoch changed from {self._epoch} to {change.epoch}")
        if change.sequence_number != self._next_number:
            raise OutOfStep(f"message {change.sequence_number} came where {self._next_number} was due")
        self._next_number += 1

    def _take_part(self, part: worker_pb2.BlocksSnapshot) -> None:
        if self.has_snapshot:
            raise OutOfStep("a second snapshot came on the same stream")
        self._parts.update(part.block_keys)
        if part.complete:
            blocks = WorkerBlocks(self._worker.model, part.kv_digest, part.block_size, self._parts)
            self._index.replace(self._worker.endpoint, blocks)
            self._on_snapshot(len(self._parts))
            self.has_snapshot = True

    def _require_snapshot(self) -> None:
        if not self.has_snapshot:
            raise OutOfStep("a change came before the snapshot was complete")
