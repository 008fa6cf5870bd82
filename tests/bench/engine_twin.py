"""A twin of the worker that makes tokens at a set rate and computes nothing: what is left is what the mesh costs.

    python tests/bench/engine_twin.py --model twin --model-path DIR --control HOST:PORT --tokens-per-s 30000

It announces itself, describes itself and streams as a worker does: a step adds one token to every running request,
steps come so often that all requests together get the rate, and a stream's message carries what was made since its
last one. Ids come from a seeded generator over the ordinary part of the vocabulary.
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field
from serin.control.v1 import registry_pb2
from serin.generation.v1 import sampling_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.errors import MeshError, Reason
from serin_mesh.identity import digest_json, vocabulary_digest
from serin_mesh.metrics import registry
from serin_mesh.readiness import Readiness
from serin_mesh.server import run_main, serve
from serin_mesh.settings import ServiceSettings, load_settings
from serin_worker.work_stream import WorkStreams
from vocabulary import ordinary_ids

PROGRAM = "engine-twin"
BLOCK_SIZE = 16
NUM_IDS = 4096
"""Length of the sequence of ids that every answer repeats."""


class TwinSettings(ServiceSettings):
    """What the twin is told."""

    model: str = Field("twin", description="model that it pretends to serve")
    model_path: Path = Field(Path(), description="folder whose tokenizer.json says what its ids mean")
    tokens_per_s: float = Field(30_000.0, gt=0, description="tokens a second for all requests together")
    max_sequences: int = Field(256, ge=1, description="requests that run at once; the rest wait")
    without_streams: bool = Field(False, description="know `Generate` only, as workers before `Work`")
    context_length: int = Field(32_768, ge=2, description="longest prompt and output together")


class Running:
    """One request: how far it is; who listens is told of each step."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_made = 0
        self.on_step: Callable[[], None] = lambda: None


class Clock:
    """Makes the steps: one token more for every running request, as often as the rate asks for."""

    def __init__(self, settings: TwinSettings) -> None:
        self._rate = settings.tokens_per_s
        self._slots = asyncio.Semaphore(settings.max_sequences)
        self._running: set[Running] = set()
        self._started = asyncio.Event()
        self.num_steps = 0
        self.num_made = 0

    async def admit(self, limit: int) -> Running:
        """Wait for a slot and begin."""
        await self._slots.acquire()
        running = Running(limit)
        self._running.add(running)
        self._started.set()
        return running

    def release(self, running: Running) -> None:
        """The request is over."""
        self._running.discard(running)
        self._slots.release()

    async def run(self) -> None:
        """Step while there is work.

        An engine steps in a thread or process of its own, whatever its server does; so a step that this loop comes to
        late makes up for the time: the rate that is offered stays, only the messages grow.
        """
        owed = 0.0
        last = time.perf_counter()
        while True:
            if not self._running:
                self._started.clear()
                await self._started.wait()
                owed, last = 0.0, time.perf_counter()
            working = [running for running in self._running if running.num_made < running.limit]
            now = time.perf_counter()
            owed += (now - last) * self._rate / max(1, len(working))
            last = now
            if owed >= 1.0:
                self._make(working, int(owed))
                owed -= int(owed)
            await asyncio.sleep(max(0.0, (1.0 - owed) * max(1, len(working)) / self._rate))

    def _make(self, working: Sequence[Running], count: int) -> None:
        for running in working:
            made = min(count, running.limit - running.num_made)
            running.num_made += made
            self.num_made += made
            running.on_step()
        self.num_steps += count


class TwinService(worker_pb2_grpc.WorkerServiceServicer):
    """`WorkerService` of the twin: `Generate`, `Work`, `DescribeWorker`, `WatchCache`."""

    def __init__(self, settings: TwinSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.vocabulary = vocabulary_digest(settings.model_path)
        self.kv = digest_json({"twin": settings.model})
        rng = random.Random(0)
        self._vocabulary = ordinary_ids(settings.model_path)
        self._ids = rng.choices(self._vocabulary, k=NUM_IDS)
        self.streams = WorkStreams()

    async def Generate(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Stream as many ids as asked for, behind those the caller already has."""
        news = asyncio.Event()
        async with self._begin(request) as answer:
            answer.listen(news.set)
            while not answer.is_over:
                await news.wait()
                news.clear()
                for event in answer.take():
                    yield event

    async def Work(  # noqa: N802 - the method's name in the contract
        self, request_iterator: AsyncIterator[worker_pb2.WorkRequest], context: Any
    ) -> AsyncIterator[worker_pb2.WorkResponse]:
        """The same for many requests."""
        if self._settings.without_streams:
            raise MeshError(Reason.NOT_IMPLEMENTED, "this twin knows no streams")
        async with self.streams.serving(self._begin, context) as stream:
            async for response in stream.responses(request_iterator):
                yield response

    async def DescribeWorker(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.DescribeWorkerRequest, context: Any
    ) -> worker_pb2.DescribeWorkerResponse:
        """What it pretends to be."""
        settings = self._settings
        return worker_pb2.DescribeWorkerResponse(
            model=settings.model, version=settings.version, instance=settings.instance,
            vocabulary_digest=self.vocabulary, kv_digest=self.kv, numerics_class="twin", numerics="invariant",
            precision="float32", block_size=BLOCK_SIZE, block_count=1 << 16, context_length=settings.context_length,
            max_sequence_count=settings.max_sequences, vocabulary_size=self._vocabulary.stop,
            step_count=self._clock.num_steps,
        )  # fmt: skip

    async def WatchCache(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.WatchCacheRequest, context: Any
    ) -> AsyncIterator[worker_pb2.WatchCacheResponse]:
        """It holds no blocks, and never will."""
        snapshot = worker_pb2.BlocksSnapshot(complete=True, block_size=BLOCK_SIZE, kv_digest=self.kv)
        yield worker_pb2.WatchCacheResponse(epoch="twin", snapshot=snapshot)
        await asyncio.Event().wait()

    @asynccontextmanager
    async def _begin(self, request: worker_pb2.GenerateRequest) -> "AsyncIterator[Answer]":
        if request.vocabulary_digest != self.vocabulary:
            raise MeshError(Reason.VOCABULARY_MISMATCH, f"the ids are of another vocabulary than {self.vocabulary}")
        prompt = sum(len(segment.tokens.token_ids) for segment in request.prompt)
        prior = len(request.prior_outputs[0].token_ids) if request.prior_outputs else 0
        room = self._settings.context_length - prompt
        limit = min(request.sampling.max_tokens or room, room) - prior
        running = await self._clock.admit(limit)
        started = worker_pb2.GenerationStarted(
            prompt_token_count=prompt, worker=self._settings.instance, kv_digest=self.kv, numerics_class="twin"
        )
        try:
            yield Answer(running, self._ids, prior, started)
        finally:
            self._clock.release(running)


class Answer:
    """One request's ids as events: a source of a `Work` stream."""

    def __init__(self, running: Running, ids: Sequence[int], prior: int, started: worker_pb2.GenerationStarted) -> None:
        self._running = running
        self._ids = ids
        self._prior = prior
        self._started: worker_pb2.GenerationStarted | None = started
        self._prompt = started.prompt_token_count
        self._num_sent = 0
        self.is_over = False

    def listen(self, on_arrival: Callable[[], None]) -> None:
        """Have this called whenever there is something to take."""
        self._running.on_step = on_arrival
        on_arrival()

    def take(self) -> Iterator[worker_pb2.GenerateResponse]:
        """What was made since the last time."""
        if self._started is not None:
            yield worker_pb2.GenerateResponse(started=self._started)
            self._started = None
        first, count = self._prior + self._num_sent, self._running.num_made - self._num_sent
        if count:
            delta = worker_pb2.GenerationDelta(
                choice_index=0, first_position=first, token_ids=self._ids_at(first, count)
            )
            yield worker_pb2.GenerateResponse(delta=delta)
            self._num_sent += count
        if self._num_sent >= self._running.limit:
            self.is_over = True
            finished = worker_pb2.ChoiceFinished(choice_index=0, finish_reason=sampling_pb2.FINISH_REASON_LENGTH)
            yield worker_pb2.GenerateResponse(choice_finished=finished)
            summary = worker_pb2.GenerationSummary(
                prompt_token_count=self._prompt, generated_token_count=self._running.limit
            )
            yield worker_pb2.GenerateResponse(summary=summary)

    def _ids_at(self, first: int, count: int) -> list[int]:
        at = first % NUM_IDS
        ids = list(self._ids[at : at + count])
        while len(ids) < count:
            ids += self._ids[: count - len(ids)]
        return ids


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop."""
    return run_main(PROGRAM, _serve(load_settings(TwinSettings, argv, PROGRAM)))


async def _serve(settings: TwinSettings) -> None:
    clock = Clock(settings)
    service = TwinService(settings, clock)
    readiness = Readiness()
    readiness.watch(service.streams.follow)
    made = _Made(clock)
    registry().register(made)

    async def startup() -> None:
        readiness.ready(
            digests=registry_pb2.Digests(
                artifact=service.kv, vocabulary=service.vocabulary, kv=service.kv, numerics_class="twin"
            ),
            capacity=registry_pb2.Capacity(
                sequence_count=settings.max_sequences, block_count=1 << 16, block_size=BLOCK_SIZE,
                context_length=settings.context_length, group_size=1,
            ),
        )  # fmt: skip

    ticking = asyncio.create_task(clock.run())

    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)

    try:
        await serve(
            settings, "worker", register, readiness=readiness,
            announce=Announcement(model=settings.model), startup=startup,
        )  # fmt: skip
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)


class _Made:
    """Tokens made so far, as a metric: what was offered to the mesh."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def collect(self) -> Any:
        from prometheus_client.core import CounterMetricFamily

        yield CounterMetricFamily("serin_twin_tokens", "Tokens made.", value=self._clock.num_made)

    def describe(self) -> Any:
        return self.collect()


if __name__ == "__main__":
    sys.exit(main())
