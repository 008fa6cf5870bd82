"""A worker as the cache sees one: its blocks, watched and purged over real gRPC."""

import asyncio
import contextlib
from collections import deque

from serin.control.v1 import lane_pb2, registry_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.identity import block_keys, cache_namespace
from serin_mesh.testing import running

BLOCK = 4
SECRET = b"s" * 32
KV = "kv-digest"


def keys_of(group, token_ids, *, salt="", kv=KV):
    """Keys of a prompt's full blocks, as a worker computes them."""
    return list(block_keys(cache_namespace(SECRET, cache_group=group, kv=kv, salt=salt), token_ids, BLOCK))


class WorkerTwin(worker_pb2_grpc.WorkerServiceServicer):
    """Streams whatever the test makes it hold.

    Attributes:
        num_watches: watches that began.
        purged: cache groups it was asked to forget.
        skip: messages to lose, by making their numbers jump.
    """

    def __init__(self, *keys):
        self.keys = list(keys)
        self.epoch = "epoch-1"
        self.num_watches = 0
        self.purged = []
        self.skip = 0
        self._events = {}

    def store(self, *keys):
        """Hold more blocks."""
        self.keys += keys
        self._tell(worker_pb2.WatchCacheResponse(stored=worker_pb2.BlocksStored(block_keys=keys)))

    def remove(self, *keys):
        """Drop blocks."""
        self.keys = [key for key in self.keys if key not in keys]
        self._tell(worker_pb2.WatchCacheResponse(removed=worker_pb2.BlocksRemoved(block_keys=keys)))

    def restart(self, *keys):
        """Begin a new epoch in the middle of every stream."""
        self.epoch += "'"
        self.store(*keys)

    def _tell(self, change):
        for pending, changed in self._events.values():
            pending.append(change)
            changed.set()

    async def WatchCache(self, request, context):  # noqa: N802
        """A snapshot in two parts, then changes."""
        self.num_watches += 1
        pending, changed = self._events[self.num_watches] = deque(), asyncio.Event()
        number, mine = 0, self.num_watches
        half = len(self.keys) // 2
        parts = [(self.keys[:half], False), (self.keys[half:], True)]
        try:
            for part, complete in parts:
                snapshot = worker_pb2.BlocksSnapshot(block_keys=part, complete=complete, block_size=BLOCK, kv_digest=KV)
                yield worker_pb2.WatchCacheResponse(sequence_number=number, epoch=self.epoch, snapshot=snapshot)
                number += 1
            while True:
                while pending:
                    change = pending.popleft()
                    change.epoch = self.epoch
                    number, self.skip = number + self.skip, 0
                    change.sequence_number = number
                    yield change
                    number += 1
                changed.clear()
                await changed.wait()
        finally:
            del self._events[mine]

    async def PurgeCache(self, request, context):  # noqa: N802
        """Forget a group."""
        self.purged.append(request.cache_group)
        num_blocks = len(self.keys)
        self.remove(*self.keys)
        return worker_pb2.PurgeCacheResponse(block_count=num_blocks)


@contextlib.asynccontextmanager
async def serving(twin, **options):
    """A twin behind a real server; gives its address."""
    async with running(
        lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(twin, server), "worker", **options
    ) as host:
        yield host.address


def lanes(*addresses, model="small", state=registry_pb2.INSTANCE_STATE_READY, instance="w"):
    """What the control plane says about these workers; every one is in two lanes."""
    endpoints = [
        lane_pb2.Endpoint(instance=f"{instance}-{address}", endpoint=address, state=state) for address in addresses
    ]
    member = lane_pb2.LaneMember(service=registry_pb2.SERVICE_KIND_WORKER, endpoints=endpoints)
    other = lane_pb2.LaneMember(service=registry_pb2.SERVICE_KIND_TOKENIZER)
    lane = [lane_pb2.Lane(lane=name, members=[other, member]) for name in ("a", "b")]
    return lane_pb2.WatchLanesResponse(models=[lane_pb2.Model(name=model, lanes=lane)])
