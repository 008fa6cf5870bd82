"""The worker as a process: ``python -m serin_worker --model small --model-path DIR``.

It listens and announces itself before it imports torch, which takes seconds.
"""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from serin.control.v1 import registry_pb2
from serin.worker.v1 import worker_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.load import LoadReport
from serin_mesh.metrics import registry
from serin_mesh.readiness import Readiness
from serin_mesh.server import StartupFailed, run_main, serve
from serin_mesh.settings import SettingsError, load_settings

from serin_worker.metrics import EngineCollector, RequestTimes
from serin_worker.service import WorkerService
from serin_worker.serving import Serving, StepWatch, load_of
from serin_worker.settings import WorkerSettings

PROGRAM = "serin-worker"
CALLERS = {"/serin.worker.v1.WorkerService/PurgeCache": ("cache", "control")}


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
    attached: list[Serving] = []
    readiness = Readiness(probe=lambda: all(watch.is_moving() for watch in watches))

    def load() -> LoadReport:
        return load_of(attached[0]) if attached else LoadReport()

    async with AsyncExitStack() as stack:

        async def startup() -> None:
            readiness.starting("loading libraries")
            assembly = await asyncio.to_thread(importlib.import_module, "serin_worker.assembly")
            serving: Serving = await stack.enter_async_context(assembly.serving(settings, readiness.starting))
            attached.append(serving)
            watches.append(StepWatch(serving.loop, settings.stall_s))
            service.attach(serving, _measure(serving, registry()))
            readiness.ready(digests=_digests(serving), capacity=_capacity(serving))
            await serving.loop.failed()

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


def _measure(serving: Serving, into: CollectorRegistry) -> RequestTimes:
    into.register(EngineCollector(serving))
    return RequestTimes(into, serving.model)


def _digests(serving: Serving) -> registry_pb2.Digests:
    about = serving.about
    return registry_pb2.Digests(
        artifact=about.weights_digest,
        vocabulary=serving.vocabulary_digest,
        kv=about.kv_digest,
        numerics_class=about.numerics_class,
    )


def _capacity(serving: Serving) -> registry_pb2.Capacity:
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
