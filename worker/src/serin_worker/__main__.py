"""The worker as a process: ``python -m serin_worker --model small --model-path DIR``.

It listens and announces itself before it imports torch, which takes seconds.
"""

import asyncio
import importlib
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import ModuleType
from typing import Any

from prometheus_client import CollectorRegistry
from serin.control.v1 import registry_pb2
from serin.worker.v1 import worker_pb2_grpc
from serin_mesh import logs
from serin_mesh.announce import Announcement
from serin_mesh.garbage import not_collecting
from serin_mesh.load import LoadReport
from serin_mesh.metrics import registry
from serin_mesh.readiness import Condition, Readiness, State
from serin_mesh.server import StartupFailed, run_main, serve
from serin_mesh.settings import SettingsError, load_settings

from serin_worker.embedding.metrics import EmbeddingCollector, EmbeddingTimes
from serin_worker.embedding.serving import EmbeddingServing
from serin_worker.errors import HandedOver
from serin_worker.handover import Handover
from serin_worker.metrics import EngineCollector, RequestTimes
from serin_worker.model.read_ahead import read_ahead
from serin_worker.numerics_watch import NumericsWatch
from serin_worker.service import WorkerService
from serin_worker.serving import Serving, StepWatch
from serin_worker.settings import WorkerSettings

PROGRAM = "serin-worker"
Served = Serving | EmbeddingServing
CALLERS = {
    "/serin.worker.v1.WorkerService/PurgeCache": ("cache", "control"),
    "/serin.worker.v1.WorkerService/ListAccounts": ("gateway",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop; the exit status says how it went."""
    return run_main(PROGRAM, _run(load_settings(WorkerSettings, argv, PROGRAM)))


async def _run(settings: WorkerSettings) -> None:
    try:
        await _serve(settings)
    except StartupFailed as failed:
        if isinstance(failed.__cause__, SettingsError):
            raise failed.__cause__ from None  # a setting is to blame: exit status 2
        raise


async def _serve(settings: WorkerSettings) -> None:
    service = WorkerService()
    watches: list[StepWatch] = []
    attached: list[Served] = []
    readiness = Readiness(probe=lambda: all(watch.is_moving() for watch in watches))

    def load() -> LoadReport:
        return attached[0].load() if attached else LoadReport()

    async with AsyncExitStack() as stack:

        async def startup() -> None:
            readiness.starting("loading libraries")
            stack.callback(readiness.watch(_telling_stages()))
            assembly = await _libraries(settings.model_path)
            serving: Served = await stack.enter_async_context(assembly.serving(settings, readiness.starting))
            attached.append(serving)
            watches.append(StepWatch(serving.loop, settings.stall_s))
            numerics = NumericsWatch(lambda: _check_numerics(serving))
            service.attach(serving, _measure(serving, registry()), numerics)
            handover = Handover(partial(_hand_over, serving), stall_s=settings.stall_s, drain_s=_drain_s(settings))
            stack.callback(readiness.watch(handover.follow))
            stack.callback(readiness.watch(partial(_end_streams, service, _notice_s(settings))))
            readiness.ready(digests=_digests(serving), capacity=_capacity(serving))
            await _first_of(serving.loop.failed(), numerics.lost())

        await serve(
            settings,
            "worker",
            lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server),
            readiness=readiness,
            load=load,
            announce=Announcement(model=settings.model),
            callers=CALLERS,
            startup=startup,
        )


def _telling_stages() -> Callable[[Condition], None]:
    """Log what is done before the service is ready, a line for each stage."""
    told = ""

    def tell(condition: Condition) -> None:
        nonlocal told
        if condition.state is State.STARTING and condition.activity not in ("", told):
            told = condition.activity
            logs.get().info("worker.starting", activity=told)

    return tell


async def _libraries(model: str) -> ModuleType:
    """Import what takes seconds, while the disk reads the model."""
    cancelled = threading.Event()
    reading = asyncio.create_task(asyncio.to_thread(read_ahead, model, cancelled))
    try:
        assembly = await asyncio.to_thread(_import_assembly)
        await reading
        return assembly
    finally:
        cancelled.set()


def _import_assembly() -> ModuleType:
    with not_collecting():
        return importlib.import_module("serin_worker.assembly")


def _hand_over(serving: Served, error: HandedOver) -> None:
    num_streams = serving.loop.hand_over(error)
    if num_streams:
        logs.get().warning("streams.handed_over", cause=error.cause, streams=num_streams)


async def _check_numerics(serving: Served) -> bool:
    is_sound = await serving.computes_numbers()
    logs.get().warning("numerics.checked", sound=is_sound)
    return is_sound


async def _first_of(*waits: Coroutine[Any, Any, None]) -> None:
    """Wait until one of several things has happened, and raise what it raised."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _drain_s(settings: WorkerSettings) -> float:
    """Seconds from the start of a drain to the cancelling of what still runs."""
    return settings.drain_grace_s + _notice_s(settings)


def _notice_s(settings: WorkerSettings) -> float:
    """Seconds of a drain in which those who do not know of it yet are still served."""
    return settings.drain_notice_s if settings.control else 0.0


def _end_streams(service: WorkerService, notice_s: float, condition: Condition) -> None:
    if condition.state is State.DRAINING:
        asyncio.get_running_loop().call_later(notice_s, service.drain)


def _measure(serving: Served, into: CollectorRegistry) -> RequestTimes | EmbeddingTimes:
    if isinstance(serving, EmbeddingServing):
        into.register(EmbeddingCollector(serving))
        return EmbeddingTimes(into, serving.model)
    into.register(EngineCollector(serving))
    return RequestTimes(into, serving.model)


def _digests(serving: Served) -> registry_pb2.Digests:
    return registry_pb2.Digests(
        artifact=serving.about.weights_digest,
        vocabulary=serving.vocabulary_digest,
        kv=serving.result_digest,
        numerics_class=serving.about.numerics_class,
    )


def _capacity(serving: Served) -> registry_pb2.Capacity:
    if isinstance(serving, EmbeddingServing):
        bounds = serving.about.bounds
        return registry_pb2.Capacity(
            sequence_count=serving.max_num_inputs,
            context_length=bounds.max_tokens,
            group_size=1,
            embedding_dimension_count=bounds.num_dimensions,
        )
    about = serving.about
    return registry_pb2.Capacity(
        sequence_count=about.max_num_sequences,
        block_count=about.num_blocks,
        block_size=about.block_size,
        context_length=about.context_length,
        group_size=1,
    )


if __name__ == "__main__":
    sys.exit(main())
