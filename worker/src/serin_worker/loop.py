"""The engine in its own thread, and the bridge to asyncio.

Commands go in through a bounded inbox; outputs come out once for all that was made since the asyncio loop last looked,
so that neither side waits for the other. Knows nothing about networks or how the engine works.
"""

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from serin_worker.engine import Engine
from serin_worker.errors import EngineStopped, QueueFull, WorkerError
from serin_worker.outputs import Failed, Output
from serin_worker.request import GenerationRequest, ScoreRequest
from serin_worker.stream import OutputStream

T = TypeVar("T")
Command = Callable[[Engine], None]
_log = logging.getLogger(__name__)


class EngineLoop:
    """Runs an engine until it is stopped. Created and used on one asyncio loop.

    Args:
        engine: given up to the thread; nobody else may step it.
        max_num_requests: requests that may be open at once; more are refused with QueueFull.
    """

    def __init__(self, engine: Engine, max_num_requests: int = 2048) -> None:
        self.engine = engine
        self._max_num_requests = max_num_requests
        self._streams: dict[str, OutputStream] = {}
        self._numbers = itertools.count()
        self._inbox: deque[Command] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._failure: WorkerError | None = None
        self._outbox: list[tuple[str, Output]] = []
        self._outbox_lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="serin-engine", daemon=True)

    @property
    def num_open(self) -> int:
        """Requests with a reader."""
        return len(self._streams)

    @property
    def failure(self) -> WorkerError | None:
        """Why the engine can no longer step, if so."""
        return self._failure

    @property
    def num_steps(self) -> int:
        """Steps since start; it grows while there is work, or something is wrong."""
        return self.engine.counts.num_steps

    @property
    def num_moves(self) -> int:
        """Signs that a step goes on: steps, and the layers inside of them."""
        return self.engine.num_moves

    @property
    def has_work(self) -> bool:
        """Whether steps are due."""
        return bool(self._inbox) or self.engine.has_work

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, request: GenerationRequest | ScoreRequest) -> OutputStream:
        """Hand a request to the engine; what it says comes through the stream, a refusal included.

        Raises:
            QueueFull: too many requests are open.
            EngineStopped: it is stopping, or has failed.
        """
        if self._failure is not None or self._is_stopping:
            raise self._failure or EngineStopped("the engine is shutting down")
        if len(self._streams) >= self._max_num_requests:
            raise QueueFull(len(self._streams))
        # A name of our own: late outputs of a closed request never reach a new one that reuses its id.
        numbered = replace(request, request_id=f"{request.request_id}/{next(self._numbers)}")
        stream = OutputStream(numbered.request_id, self._abort)
        self._streams[numbered.request_id] = stream
        self._idle.clear()
        self._send(lambda engine: self._add(engine, numbered))
        return stream

    async def call(self, function: Callable[[Engine], T]) -> T:
        """Run a function on the engine between two steps."""
        future: asyncio.Future[T] = self._loop.create_future()

        def command(engine: Engine) -> None:
            try:
                result = function(engine)
            except Exception as error:  # noqa: BLE001 - carried to the caller
                self._loop.call_soon_threadsafe(_fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_resolve, future, result)

        if self._failure is not None or self._is_stopping:
            raise self._failure or EngineStopped("the engine is shutting down")
        self._send(command)
        return await future

    def hand_over(self, error: WorkerError) -> int:
        """End every open request with an error, after what was made for it; returns how many.

        It does not wait for the engine, which may be stuck: what the requests hold is free once it has taken its step.
        """
        self._deliver()
        streams = list(self._streams.items())
        for request_id, stream in streams:
            stream.push(Failed(error))
            self._abort(request_id)
        return len(streams)

    async def failed(self) -> None:
        """Wait until the engine fails; it may never do.

        Raises:
            EngineStopped: it has failed.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def drain(self) -> None:
        """Wait until no request is open."""
        await self._idle.wait()

    async def stop(self) -> None:
        """End the thread after its current step; requests that are still open fail."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._fail_streams()

    def _abort(self, request_id: str) -> None:
        self._forget(request_id)
        self._send(lambda engine: engine.abort(request_id))

    def _send(self, command: Command) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def _run(self) -> None:
        engine = self.engine
        try:
            while self._await_work():
                self._obey(engine)
                if engine.has_work:
                    self._publish(engine.step())
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            _log.exception("the engine failed")
            self._failure = EngineStopped(f"the engine failed: {type(error).__name__}: {error}")
        self._obey(engine)
        self._loop.call_soon_threadsafe(self._fail_streams)

    def _obey(self, engine: Engine) -> None:
        while self._inbox:
            self._inbox.popleft()(engine)

    def _await_work(self) -> bool:
        with self._wake:
            while not (self._inbox or self.engine.has_work or self._is_stopping):
                self._wake.wait()
            return not self._is_stopping

    def _add(self, engine: Engine, request: GenerationRequest | ScoreRequest) -> None:
        try:
            engine.add(request)
        except WorkerError as error:
            self._publish([(request.request_id, Failed(error))])

    def _fail_streams(self) -> None:
        """No step follows: deliver what was made, fail what is still open."""
        self._ended.set()
        self._deliver()
        error = self._failure or EngineStopped("the engine is shutting down")
        for request_id, stream in list(self._streams.items()):
            stream.push(Failed(error))
            self._forget(request_id)

    def _publish(self, outputs: list[tuple[str, Output]]) -> None:
        if not outputs:
            return
        with self._outbox_lock:
            is_first = not self._outbox
            self._outbox += outputs
        if is_first:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._outbox_lock:
            outputs, self._outbox = self._outbox, []
        for request_id, output in outputs:
            stream = self._streams.get(request_id)
            if stream is not None:
                stream.push(output)
                if stream.is_over:
                    self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        if not self._streams:
            self._idle.set()


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
