"""An encoder in its own thread, and the bridge to asyncio: what waits is computed batch by batch.

Requests join the line with all of their inputs; batches are made of inputs, whoever they belong to. Knows nothing about
networks.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from serin_worker.embedding.batching import next_batch
from serin_worker.embedding.encoder import Encoder
from serin_worker.embedding.request import EmbeddingBounds, EmbeddingRequest
from serin_worker.errors import EngineStopped, NotComputed, NotFinite, QueueFull, WorkerError
from serin_worker.rate import RequestRate

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class EmbeddingCounts:
    """Figures since start; written by the thread, read by anybody."""

    num_steps: int = 0
    num_inputs: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_not_finite: int = 0


@dataclass(frozen=True, slots=True)
class Embedded:
    """A request's vectors, [inputs, dimensions] float32, and the seconds that it waited and that it took after that."""

    vectors: torch.Tensor
    queue_s: float
    compute_s: float


@dataclass(eq=False, slots=True)
class _Open:
    """A request that is not answered yet."""

    request: EmbeddingRequest
    future: "asyncio.Future[Embedded]"
    vectors: torch.Tensor
    num_left: int
    arrived_at: float
    began_at: float | None = None
    is_over: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class _Input:
    """One input of a request."""

    of: _Open
    index: int
    ids: Sequence[int] = field(repr=False)


class EmbeddingLoop:
    """Computes vectors until it is stopped. Created and used on one asyncio loop.

    Args:
        encoder: given up to the thread.
        bounds: what may be asked.
        max_batch_tokens: most tokens of a batch, padding counted.
        max_num_waiting: inputs that may wait; a request that finds more of them is refused, unless nothing waits.
        is_invariant: each input is computed alone, so that its vector's bits depend on nothing else.
    """

    def __init__(
        self,
        encoder: Encoder,
        bounds: EmbeddingBounds,
        *,
        max_batch_tokens: int,
        max_num_waiting: int,
        is_invariant: bool = False,
    ) -> None:
        self.bounds = bounds
        self.counts = EmbeddingCounts()
        self.rate = RequestRate(time.monotonic)
        self.num_running = 0
        self._encoder = encoder
        self._max_batch_tokens = 1 if is_invariant else max_batch_tokens
        self._max_num_waiting = max_num_waiting
        self._waiting: list[_Input] = []
        self._open: set[_Open] = set()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._failure: WorkerError | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="serin-embedding", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Inputs in line."""
        return len(self._waiting)

    @property
    def failure(self) -> WorkerError | None:
        """Why nothing is computed any more, if so."""
        return self._failure

    @property
    def num_moves(self) -> int:
        """Signs that a batch goes on: batches, and the layers inside of them."""
        return self.counts.num_steps + self._encoder.num_layers_run

    @property
    def has_work(self) -> bool:
        """Whether batches are due or under way."""
        return bool(self._waiting) or self.num_running > 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """The vectors of a request; whoever is cancelled while it waits takes its inputs out of the line.

        Raises:
            RequestRefused: it cannot be computed, or too much waits (QueueFull).
            RequestFailed: the model produced no numbers for one of its inputs, or failed on it.
            EngineStopped: the thread is stopping, or has failed.
        """
        if self._failure is not None or self._is_stopping:
            raise self._failure or EngineStopped("the engine is shutting down")
        self.bounds.check(request)
        if self._waiting and len(self._waiting) + len(request.inputs) > self._max_num_waiting:
            raise QueueFull(len(self._waiting), "inputs")
        num_dimensions = request.num_dimensions or self.bounds.num_dimensions
        one = _Open(
            request,
            self._loop.create_future(),
            torch.empty((len(request.inputs), num_dimensions)),
            num_left=len(request.inputs),
            arrived_at=time.monotonic(),
        )
        self._open.add(one)
        with self._wake:
            self._waiting += [_Input(one, index, ids) for index, ids in enumerate(request.inputs)]
            self._wake.notify()
        try:
            return await one.future
        finally:
            self._leave(one)

    async def computes_numbers(self) -> bool:
        """Embed a fixed input: whether its vector is made of numbers.

        Raises:
            WorkerError: it could not be asked.
        """
        ids = [number % self.bounds.vocabulary_size for number in range(1, min(9, self.bounds.max_tokens + 1))]
        try:
            await self.embed(EmbeddingRequest([ids]))
        except (NotFinite, NotComputed):
            return False
        return True

    def hand_over(self, error: WorkerError) -> int:
        """End every open request with an error; returns how many. Does not wait for the thread, which may be stuck."""
        requests = list(self._open)
        for one in requests:
            self._fail(one, error)
        return len(requests)

    async def failed(self) -> None:
        """Wait until the thread fails; it may never do.

        Raises:
            EngineStopped: it has failed.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """End the thread after its current batch; requests that are still open fail."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._end()

    def _leave(self, one: _Open) -> None:
        one.is_over = True
        self._open.discard(one)
        with self._wake:
            if one.num_left:
                self._waiting = [other for other in self._waiting if other.of is not one]

    def _run(self) -> None:
        try:
            while batch := self._take():
                outcomes = self._compute(batch)
                self.counts.num_steps += 1
                self.num_running = 0
                for tell in outcomes:  # whoever hears of it finds nothing under way any more
                    self._loop.call_soon_threadsafe(tell)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            _log.exception("the engine failed")
            self._failure = EngineStopped(f"the engine failed: {type(error).__name__}: {error}")
        self._loop.call_soon_threadsafe(self._end)

    def _take(self) -> list[_Input]:
        """The next batch; empty once the thread should end."""
        with self._wake:
            while not (self._waiting or self._is_stopping):
                self._wake.wait()
            if self._is_stopping:
                return []
            batch = next_batch(self._waiting, lambda one: len(one.ids), self._max_batch_tokens)
            taken = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in taken]
            self.num_running = len(batch)
            return batch

    def _compute(self, batch: list[_Input]) -> list[Callable[[], None]]:
        """Compute a batch; what its requests are to be told, on their loop."""
        now = time.monotonic()
        for one in batch:
            one.of.began_at = one.of.began_at or now
        try:
            vectors = self._encoder.encode([one.ids for one in batch])
        except Exception as error:  # noqa: BLE001 - it fails whoever it belongs to
            if len(batch) > 1:
                return [tell for one in batch for tell in self._compute([one])]
            _log.warning("an input could not be computed", exc_info=True)
            return [partial(self._fail, batch[0].of, NotComputed(batch[0].index, error))]
        self._note(batch, vectors)
        is_finite = torch.isfinite(vectors).all(dim=1).tolist()
        for one, vector, is_sound in zip(batch, vectors, is_finite, strict=True):
            if is_sound:
                one.of.vectors[one.index] = self._encoder.shorten(vector[None], one.of.vectors.shape[1])[0]
        return [partial(self._deliver, batch, is_finite)]

    def _note(self, batch: list[_Input], vectors: torch.Tensor) -> None:
        lengths = [len(one.ids) for one in batch]
        self.counts.num_inputs += len(batch)
        self.counts.num_tokens += sum(lengths)
        self.counts.num_padded_tokens += max(lengths) * len(batch)

    def _deliver(self, batch: list[_Input], is_finite: list[bool]) -> None:
        for one, is_sound in zip(batch, is_finite, strict=True):
            if not is_sound:
                self.counts.num_not_finite += 1
                self._fail(one.of, NotFinite("vectors"))
                continue
            one.of.num_left -= 1
            if not one.of.num_left and not one.of.future.done():
                began_at, now = one.of.began_at or one.of.arrived_at, time.monotonic()
                one.of.future.set_result(Embedded(one.of.vectors, began_at - one.of.arrived_at, now - began_at))
                self.rate.note()

    def _fail(self, one: _Open, error: WorkerError) -> None:
        if not one.future.done():
            one.future.set_exception(error)

    def _end(self) -> None:
        """No batch follows: fail what is still open."""
        self._ended.set()
        self.hand_over(self._failure or EngineStopped("the engine is shutting down"))
