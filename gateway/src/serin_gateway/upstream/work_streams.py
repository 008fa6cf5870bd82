"""The streams to workers: one for each lane and worker, opened when first needed, closed when nobody needs it.

Knows nothing about what is asked on them.
"""

import asyncio
import contextvars
import time

from serin.worker.v1 import worker_pb2_grpc
from serin_mesh.call import LANE_KEY, VOCABULARY_KEY
from serin_mesh.errors import MeshError, Reason
from serin_mesh.pick import pick_cookie

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.targets import Channels
from serin_gateway.upstream.work_stream import WorkStream

STREAM_AGE_S = 600.0
"""After this a stream takes nothing new, so that certificates are renewed under it."""
IDLE_S = 30.0
"""A stream without work is closed after so long."""
REMEMBERED_S = 600.0
"""A worker that knows no streams is asked again after so long: another process may be at its address."""
CHECK_EVERY_S = 1.0

Key = tuple[str, str, str]


class WorkStreams:
    """Opens streams to the workers of any lane; `watch` is a task of whoever owns it."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._current: dict[Key, WorkStream] = {}
        self._open: dict[WorkStream, Key] = {}
        self._without: dict[str, float] = {}

    def to(self, scope: CallScope, worker: Worker) -> WorkStream | None:
        """The stream to a worker; None: it knows none."""
        if worker.endpoint in self._without:
            return None
        key = (scope.model, scope.lane.lane, worker.endpoint)
        stream = self._current.get(key)
        if stream is None or not stream.takes_work or time.monotonic() - stream.began_at > STREAM_AGE_S:
            stream = self._current[key] = self._opened(key, scope, worker)
        return stream

    async def watch(self) -> None:
        """Close what nobody needs, for as long as this task lives."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self.check(time.monotonic())

    async def check(self, now: float) -> None:
        """Close what nobody needs, once."""
        for endpoint in [one for one, since in self._without.items() if now - since > REMEMBERED_S]:
            del self._without[endpoint]
        for stream, key in list(self._open.items()):
            is_retired = self._current.get(key) is not stream
            if not stream.works and (is_retired or now - stream.idle_since > IDLE_S):
                await stream.close()

    async def close(self) -> None:
        """Close all streams; what is open fails."""
        for stream in list(self._open):
            await stream.close()

    def _opened(self, key: Key, scope: CallScope, worker: Worker) -> WorkStream:
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
        metadata = (
            (LANE_KEY, scope.lane.lane),
            (VOCABULARY_KEY, scope.lane.vocabulary_digest),
            pick_cookie(worker.cluster, worker.endpoint),
        )
        # The stream outlives the request that needs it first: it is no part of that one's trace or deadline.
        stream = contextvars.Context().run(
            lambda: WorkStream(stub.Work(metadata=metadata), worker.instance, self._ended)
        )
        self._open[stream] = key
        return stream

    def _ended(self, stream: WorkStream, error: MeshError | None) -> None:
        key = self._open.pop(stream)
        if self._current.get(key) is stream:
            del self._current[key]
        if error is not None and error.reason is Reason.NOT_IMPLEMENTED:
            self._without[key[2]] = time.monotonic()
        for work in list(stream.works.values()):
            work.lost(error)
