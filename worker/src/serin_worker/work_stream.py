"""One `Work` stream: many requests, each a task of its own inside the layers of a call, and one pump for what they say.

What is ready of all requests goes in one message; while the caller is slow, or has paused a request, what it is told
waits with whoever makes it, and melts together there. Knows nothing about engines: a `Source` is what makes events.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import grpc
from serin.worker.v1 import worker_pb2
from serin_mesh.carried import CarriedCalls
from serin_mesh.errors import MeshError, Reason
from serin_mesh.readiness import Condition, State

METHOD = "/serin.worker.v1.WorkerService/Generate"
"""A request on a stream is served, logged and counted as this call."""
MAX_OPEN = 4096
"""Requests on one stream; more are refused with QUEUE_FULL."""
MAX_NEWS = 512
MAX_TOKENS = 16_384
"""News and tokens that one message carries, about; with log-probabilities of many alternatives some megabytes."""


class Source(Protocol):
    """What makes the events of one request."""

    def listen(self, on_arrival: Callable[[], None]) -> None:
        """Have this called whenever there is something to take; at once if there is."""

    def take(self) -> Iterable[worker_pb2.GenerateResponse]:
        """What there is now; a summary is the last event.

        Raises:
            MeshError: while iterating: it failed, after the events before.
        """


Begin = Callable[[worker_pb2.GenerateRequest], AbstractAsyncContextManager[Source]]
"""Begins a request when it is entered, or refuses it with a MeshError; leaving it aborts the request."""


class WorkStreams:
    """The streams that a worker serves."""

    def __init__(self) -> None:
        self._streams: set[WorkStream] = set()
        self._is_draining = False

    def drain(self) -> None:
        """Refuse new requests on all streams, and end each once its requests are over."""
        self._is_draining = True
        for stream in self._streams:
            stream.drain()

    def follow(self, condition: Condition) -> None:
        """Called with a service's condition now and after each change: drain when it does."""
        if condition.state is State.DRAINING:
            self.drain()

    @asynccontextmanager
    async def serving(self, begin: Begin, context: "grpc.aio.ServicerContext[Any, Any]") -> "AsyncIterator[WorkStream]":
        """Serve one; what is still open on it when the block ends is aborted."""
        stream = WorkStream(begin, context)
        self._streams.add(stream)
        if self._is_draining:
            stream.drain()
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            await stream.close()


class _Work:
    """One request on the stream."""

    def __init__(self, work_id: int) -> None:
        self.work_id = work_id
        self.lane: str | None = None
        """Lane that serves it, until that was said."""
        self.error: MeshError | None = None
        """What its source ended with, until the layers have seen it."""
        self.failure: MeshError | None = None
        """What is to be said of it last."""
        self.source: Source | None = None
        self.is_paused = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once its last event was taken."""
        self.task: asyncio.Task[None] | None = None

    def taken_error(self) -> MeshError:
        """The error, held here no longer: its traceback will hold whoever raises it."""
        assert self.error is not None
        error, self.error = self.error, None
        return error


class WorkStream:
    """A running stream.

    Args:
        begin: begins requests.
        context: of the call that carries them.
    """

    def __init__(self, begin: Begin, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._begin = begin
        self._calls = CarriedCalls(METHOD, self._generate, context)
        self._works: dict[int, _Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: OrderedDict[_Work, None] = OrderedDict()
        self._woken = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_draining = False
        self._has_all_requests = False
        self._broken: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    async def responses(
        self, requests: AsyncIterator[worker_pb2.WorkRequest]
    ) -> AsyncIterator[worker_pb2.WorkResponse]:
        """Serve what comes until all of it is over.

        Raises:
            MeshError: the caller sent what is no frame.
        """
        self._reader = asyncio.create_task(self._read(requests), name="work reader")
        while True:
            while not self._ready:
                if self._broken is not None:
                    raise self._broken
                if (self._is_draining or self._has_all_requests) and not self._tasks:
                    return
                self._woken.clear()
                await self._woken.wait()
            if news := self._take():
                yield worker_pb2.WorkResponse(news=news)

    def drain(self) -> None:
        """Refuse new requests, and end once the open ones are over."""
        self._is_draining = True
        self._woken.set()

    async def close(self) -> None:
        """Abort what is open."""
        tasks = [*self._tasks, *([self._reader] if self._reader else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[worker_pb2.WorkRequest]) -> None:
        try:
            async for request in requests:
                for frame in request.frames:
                    self._obey(frame)
                while len(self._ready) > MAX_OPEN:  # refusals that nobody reads
                    self._taken.clear()
                    await self._taken.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the stream
            self._broken = error
        self._has_all_requests = True
        self._woken.set()

    def _obey(self, frame: worker_pb2.WorkFrame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "begin":
            self._admit(frame.work_id, frame.begin)
            return
        work = self._works.get(frame.work_id)
        if work is None:
            return
        if kind == "cancel":
            self._forget(work)
            if work.task is not None:
                work.task.cancel()
        elif kind == "pause":
            work.is_paused = True
        elif kind == "resume":
            work.is_paused = False
            self._wake(work)

    def _admit(self, work_id: int, frame: worker_pb2.BeginWork) -> None:
        if work_id in self._works:
            raise MeshError(Reason.PARAMETER_INVALID, f"work_id: {work_id} is open already", parameter="work_id")
        work = _Work(work_id)
        if self._is_draining:
            work.failure = MeshError(Reason.NOT_READY, "draining; ask another worker", retry_after_s="1")
            self._wake(work)
        elif len(self._works) >= MAX_OPEN:
            full = f"{MAX_OPEN} requests are open on this stream; try again"
            work.failure = MeshError(Reason.QUEUE_FULL, full, retry_after_s="1")
            self._wake(work)
        else:
            self._works[work_id] = work
            work.task = asyncio.create_task(self._serve(work, frame), name="work")
            self._tasks.add(work.task)
            work.task.add_done_callback(self._task_ended)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._woken.set()

    async def _serve(self, work: _Work, frame: worker_pb2.BeginWork) -> None:
        def accepted(lane: str) -> None:
            work.lane = lane
            self._wake(work)

        timeout_s = frame.timeout_seconds if frame.timeout_seconds > 0 else None
        failure = await self._calls.serve((work, frame.request), frame.metadata, timeout_s, accepted)
        if work.work_id in self._works:
            self._forget(work)
            if failure is not None:
                work.failure = failure
                self._wake(work)

    async def _generate(self, asked: tuple[_Work, worker_pb2.GenerateRequest]) -> None:
        """Inside all layers: begin, and stay until the pump has taken the last event."""
        work, request = asked
        async with self._begin(request) as source:
            work.source = source
            source.listen(lambda: self._wake(work))
            await work.over
            if work.error is not None:
                raise work.taken_error()

    def _forget(self, work: _Work) -> None:
        self._works.pop(work.work_id, None)
        self._ready.pop(work, None)
        work.source = None

    def _wake(self, work: _Work) -> None:
        if work.source is not None or work.lane is not None or work.failure is not None:
            self._ready[work] = None
            self._woken.set()

    def _take(self) -> list[worker_pb2.WorkNews]:
        """What is ready of all requests, as much as fits a message, in the order in which they became so."""
        all_news: list[worker_pb2.WorkNews] = []
        num_tokens = 0
        while self._ready and len(all_news) < MAX_NEWS and num_tokens < MAX_TOKENS:
            work, _ = self._ready.popitem(last=False)
            events = self._events(work)
            num_tokens += sum(len(event.delta.token_ids) for event in events)
            if events or work.lane is not None or work.failure is not None:
                all_news.append(
                    worker_pb2.WorkNews(
                        work_id=work.work_id, lane=work.lane or "", events=events, failure=_failure(work.failure)
                    )
                )
                work.lane = None
        self._taken.set()
        return all_news

    def _events(self, work: _Work) -> list[worker_pb2.GenerateResponse]:
        events: list[worker_pb2.GenerateResponse] = []
        if work.source is None or work.is_paused:
            return events
        is_over = False
        try:
            for event in work.source.take():
                events.append(event)
                is_over = event.HasField("summary")
        except MeshError as error:
            work.error = error.with_traceback(None)  # the layers shall see it; it is said once they have
            is_over = True
        if is_over:
            work.source = None
            if not work.over.done():  # its task may have been cancelled
                work.over.set_result(None)
        return events


def _failure(error: MeshError | None) -> worker_pb2.WorkFailure | None:
    if error is None:
        return None
    return worker_pb2.WorkFailure(
        code=error.status.grpc.value[0], reason=error.reason.value, message=error.message, facts=error.metadata
    )
