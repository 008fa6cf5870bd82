"""One `Work` call to a worker, and the requests on it.

Begins of many requests travel together, and so does what the worker has to say of them. Who reads slowly has the worker
pause that request alone. Knows nothing about lanes, pulses, or what becomes of a request when the call breaks.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Self

import grpc
from serin.worker.v1 import worker_pb2
from serin_mesh.errors import MeshError, Reason, from_facts

from serin_gateway.failures import Cause
from serin_gateway.upstream.stream_writer import write_on

MAX_FRAMES = 256
MAX_BYTES = 1 << 20
"""Frames of one message, and bytes: what would be more goes into the next one. A frame alone may be larger."""
PAUSE_TOKENS = 1_024
"""Ids of one request that wait for its reader before the worker is asked to keep what it makes."""
MAX_WAITING_TOKENS = 65_536
"""More than this is waiting only where a worker does not listen: the request is given up."""

Response = worker_pb2.GenerateResponse


class StreamsUnknown(Exception):
    """The worker is older than `Work`: it wants a call for each request."""


class WorkStream:
    """A running call.

    Args:
        call: the call, nothing said on it yet.
        instance: the worker that it is meant for.
        on_end: told once when the call is over, with the reason; absent: the worker ended it well.
    """

    def __init__(self, call: Any, instance: str, on_end: Callable[["WorkStream", MeshError | None], None]) -> None:
        self._instance = instance
        self.works: dict[int, CarriedWork] = {}
        self.began_at = self.idle_since = time.monotonic()
        self.takes_work = True
        """False: it serves what it has, and nothing new."""
        self._call = call
        self._on_end = on_end
        self._numbers = itertools.count()
        self._outgoing: dict[int, worker_pb2.WorkFrame] = {}
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="work")

    def begin(
        self, request: worker_pb2.GenerateRequest, timeout_s: float, metadata: Mapping[str, str]
    ) -> "CarriedWork":
        """Have a request worked on."""
        work = CarriedWork(self, next(self._numbers), timeout_s)
        self.works[work.work_id] = work
        begin = worker_pb2.BeginWork(request=request, timeout_seconds=timeout_s, metadata=metadata)
        self._send(worker_pb2.WorkFrame(work_id=work.work_id, begin=begin))
        return work

    def cancel(self, work_id: int) -> None:
        """Have a request stopped."""
        waiting = self._outgoing.pop(work_id, None)
        self.forget(work_id)
        if waiting is None or not waiting.HasField("begin"):
            self._send(worker_pb2.WorkFrame(work_id=work_id, cancel=worker_pb2.CancelWork()))

    def pause(self, work_id: int) -> None:
        """Have a request's news held back."""
        self._send(worker_pb2.WorkFrame(work_id=work_id, pause=worker_pb2.PauseWork()))

    def resume(self, work_id: int) -> None:
        """Have a request's news go on."""
        self._send(worker_pb2.WorkFrame(work_id=work_id, resume=worker_pb2.ResumeWork()))

    def forget(self, work_id: int) -> None:
        """A request is over."""
        self.works.pop(work_id, None)
        if not self.works:
            self.idle_since = time.monotonic()

    def served_by(self, instance: str) -> None:
        """An instance works on a request: where the one that is meant had gone, another one may have taken the call."""
        if instance != self._instance:
            self.takes_work = False  # the next ones are meant for whoever is there then

    async def close(self) -> None:
        """End the call; its requests fail."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _send(self, frame: worker_pb2.WorkFrame) -> None:
        """At most one frame of each request waits: a later word replaces an earlier one."""
        self._outgoing[frame.work_id] = frame
        self._woken.set()

    async def _run(self) -> None:
        error: MeshError | None = None
        writer = asyncio.create_task(write_on(self._call, self._woken, self._take), name="work writer")
        try:
            await self._read()
        except MeshError as broken:
            error = broken.with_traceback(None)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                error = MeshError(Reason.NOT_READY, "the gateway is closing")
                raise
            error = MeshError(Reason.CANCELLED, "the worker ended the stream")
        finally:
            writer.cancel()
            self._call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self.takes_work = False
            self._on_end(self, error)

    async def _read(self) -> None:
        while True:
            response = await self._call.read()
            if response is grpc.aio.EOF:
                return
            for news in response.news:
                work = self.works.get(news.work_id)
                if work is not None:
                    work.received(news)

    def _take(self) -> worker_pb2.WorkRequest | None:
        """What requests have to say, as much as a message takes."""
        frames: list[worker_pb2.WorkFrame] = []
        num_bytes = 0
        while self._outgoing and len(frames) < MAX_FRAMES:
            work_id, frame = next(iter(self._outgoing.items()))
            num_bytes += frame.ByteSize()
            if frames and num_bytes > MAX_BYTES:
                break
            frames.append(self._outgoing.pop(work_id))
        return worker_pb2.WorkRequest(frames=frames) if frames else None


class CarriedWork:
    """One request on a stream: iterate it for what the worker says, as a call of its own would be."""

    def __init__(self, stream: WorkStream, work_id: int, timeout_s: float) -> None:
        self.work_id = work_id
        self._stream = stream
        self._events: deque[Response] = deque()
        self._num_waiting = 0
        self._is_paused = False
        self._is_accepted = False
        self._is_over = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._expiry = asyncio.get_running_loop().call_later(timeout_s, self._expired)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        """The next event; none after a cancel.

        Raises:
            MeshError: it failed, after the events before.
        """
        while not self._events:
            if self._failure is not None:
                raise self._taken_failure()
            if self._is_over:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._events.popleft()
        self._num_waiting -= len(event.delta.token_ids)
        if self._is_paused and self._num_waiting < PAUSE_TOKENS // 2 and not self._is_over:
            self._is_paused = False
            self._stream.resume(self.work_id)
        return event

    def cancel(self) -> None:
        """Stop it; nothing more is heard of it."""
        self._events.clear()
        if not self._is_over:
            self._end()
            self._stream.cancel(self.work_id)

    # What the stream says:

    def received(self, news: worker_pb2.WorkNews) -> None:
        """The worker has news of it."""
        for event in news.events:
            self._add(event)
        if news.HasField("failure"):
            failure = news.failure
            self._fail(from_facts(failure.code, failure.reason, failure.message, dict(failure.facts)))
            return
        self._is_accepted = True
        if news.events and news.events[0].HasField("started"):
            self._stream.served_by(news.events[0].started.worker)
        if news.events and news.events[-1].HasField("summary"):
            self._stream.forget(self.work_id)
            self._end()
        elif self._num_waiting > MAX_WAITING_TOKENS:
            self._stream.cancel(self.work_id)
            self._fail(MeshError(Reason.CANCELLED, f"{self._num_waiting} tokens wait for their reader"))
        elif self._num_waiting > PAUSE_TOKENS and not self._is_paused:
            self._is_paused = True
            self._stream.pause(self.work_id)
        self._wake()

    def lost(self, error: MeshError | None) -> None:
        """The stream is over."""
        if self._is_over:
            return
        if error is None:
            error = MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker's stream ended without a summary")
        if self._is_accepted:
            self._fail(MeshError(error.reason, error.message, **error.metadata))
        elif error.reason is Reason.NOT_IMPLEMENTED:
            self._fail(StreamsUnknown())
        else:
            self._fail(unaccepted(error))

    def _add(self, event: Response) -> None:
        """Tokens of a choice join those that wait at the end."""
        delta = event.delta
        self._num_waiting += len(delta.token_ids)
        if self._events and delta.token_ids:
            last = self._events[-1].delta
            if last.token_ids and last.choice_index == delta.choice_index:
                last.token_ids.extend(delta.token_ids)
                last.logprobs.extend(delta.logprobs)
                return
        self._events.append(event)

    def _expired(self) -> None:
        if not self._is_over:
            self._stream.cancel(self.work_id)
            self._fail(MeshError(Reason.DEADLINE_EXCEEDED, "the worker did not finish in time"))

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._stream.forget(self.work_id)
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._expiry.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _taken_failure(self) -> Exception:
        """The failure, held here no longer: its traceback will hold whoever raises it."""
        assert self._failure is not None
        error, self._failure = self._failure, None
        return error


def unaccepted(error: MeshError) -> MeshError:
    """What ended a request that no worker had accepted.

    A worker names its lane before it looks at the work: this never came that far, whatever the transport says of it (no
    connection, one that broke, a route that changed under it).
    """
    if error.reason is not Reason.UPSTREAM_UNAVAILABLE:
        return MeshError(error.reason, error.message, **error.metadata)
    return MeshError(error.reason, error.message, cause=Cause.UNREACHABLE.value)
