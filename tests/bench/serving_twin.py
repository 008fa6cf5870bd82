"""A worker whose engine emits as fast as it can: all of the worker but the model, in one process.

    python tests/bench/serving_twin.py --model twin

A step gives one token to each running request, at once. Its thread, its streams, its service and its server are the
worker's own.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from serin.control.v1 import registry_pb2
from serin.worker.v1 import worker_pb2_grpc
from serin_mesh.readiness import Readiness
from serin_mesh.server import run_main, serve
from serin_mesh.settings import ServiceSettings, load_settings
from serin_worker.description import EngineDescription
from serin_worker.engine import Engine
from serin_worker.loop import EngineLoop
from serin_worker.namespaces import Namespaces
from serin_worker.outputs import ChoiceFinished, Delta, Output, Started, Summary
from serin_worker.request import GenerationRequest, ScoreRequest
from serin_worker.service import WorkerService
from serin_worker.serving import Serving
from serin_worker.testing import engine_without_model

PROGRAM = "serving-twin"
MAX_SEQUENCES = 1024
VOCABULARY = "twin"


class FastEngine(Engine):
    """One token for each request at every step, whatever was asked; no scheduler, no model."""

    def __init__(self) -> None:
        inner, runner = engine_without_model()
        super().__init__(runner, inner.pool, inner.scheduler.limits, inner.bounds)
        self._made: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._begun: list[str] = []

    @property
    def has_work(self) -> bool:
        """Whether a request is open."""
        return bool(self._made)

    def add(self, request: GenerationRequest | ScoreRequest) -> None:
        """Begin a generation."""
        assert isinstance(request, GenerationRequest)
        self._made[request.request_id] = 0
        self._limits[request.request_id] = request.stopping.max_tokens or 1
        self._begun.append(request.request_id)

    def abort(self, request_id: str) -> None:
        """End it."""
        self._made.pop(request_id, None)
        self._limits.pop(request_id, None)

    def step(self) -> list[tuple[str, Output]]:
        """A token for each."""
        outputs: list[tuple[str, Output]] = [(name, Started(1, 0)) for name in self._begun if name in self._made]
        self._begun = []
        made, limits = self._made, self._limits
        outputs += [(name, Delta(0, at, [at])) for name, at in made.items()]
        for name in made:
            made[name] += 1
        for name in [name for name, at in made.items() if at >= limits[name]]:
            outputs.append((name, ChoiceFinished(0, "length")))
            outputs.append((name, Summary(1, 0, limits[name], 0, 0.0, 0.0, 0.0)))
            self.abort(name)
        self.counts.num_steps += 1
        return outputs


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop."""
    return run_main(PROGRAM, _serve(load_settings(ServiceSettings, argv, PROGRAM)))


async def _serve(settings: ServiceSettings) -> None:
    about = EngineDescription(
        Path(), "twin", "twin", "twin", "invariant", "float32", num_blocks=64, block_size=16, block_bytes=1,
        context_length=1 << 20, max_num_sequences=MAX_SEQUENCES, vocabulary_size=1 << 20, attention="none",
    )  # fmt: skip
    loop = EngineLoop(FastEngine())
    service = WorkerService(
        Serving(loop, about, VOCABULARY, Namespaces(bytes(32), "twin"), "twin", settings.version, settings.instance)
    )
    readiness = Readiness()

    async def startup() -> None:
        loop.start()
        readiness.ready(
            digests=registry_pb2.Digests(artifact="twin", vocabulary=VOCABULARY, kv="twin", numerics_class="twin"),
            capacity=registry_pb2.Capacity(sequence_count=MAX_SEQUENCES, block_count=64, block_size=16, group_size=1),
        )

    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)

    try:
        await serve(settings, "worker", register, readiness=readiness, startup=startup)
    finally:
        await loop.stop()


if __name__ == "__main__":
    sys.exit(main())
