"""Vectors of workers over gRPC (`serin.worker.v1`). A worker that falls silent is left. Knows nothing about placing."""

import asyncio
from array import array
from collections.abc import Callable, Sequence

from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker
from serin_gateway.embedder import Vector
from serin_gateway.failures import Cause
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.targets import Channels, pinned_metadata
from serin_gateway.upstream.worker import Watched, silent


class GrpcEmbedders:
    """Calls workers through the control plane's routes, pinned to the one that was chosen."""

    def __init__(self, channels: Channels, pulses: Pulses) -> None:
        self._channels = channels
        self._pulses = pulses

    async def embed(
        self,
        scope: CallScope,
        worker: Worker,
        inputs: Sequence[Sequence[int]],
        num_dimensions: int,
        may_move: Callable[[], bool],
    ) -> Sequence[Vector]:
        """One vector for each input."""
        request = worker_pb2.EmbedRequest(
            vocabulary_digest=scope.lane.vocabulary_digest,
            runs=[tokens_pb2.TokenRun(token_ids=ids) for ids in inputs],
            dimension_count=num_dimensions,
        )
        response = await self._call(scope, worker, request, may_move)
        vectors = [array("f", one.values) for one in response.embeddings]
        expected = num_dimensions or scope.lane.num_dimensions
        if len(vectors) != len(inputs) or any(len(vector) != expected for vector in vectors):
            raise MeshError(Reason.INTERNAL, f"{len(vectors)} vectors for {len(inputs)} inputs, or of another length")
        return vectors

    async def _call(
        self, scope: CallScope, worker: Worker, request: worker_pb2.EmbedRequest, may_move: Callable[[], bool]
    ) -> worker_pb2.EmbedResponse:
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
        call = stub.Embed(request, timeout=max(0.001, scope.timeout_s), metadata=pinned_metadata(scope, worker))
        watched = Watched(self._pulses, worker.endpoint, {})
        is_silent = False

        def fallen_silent() -> None:
            nonlocal is_silent
            if may_move() or watched.is_lost:
                is_silent = True
                call.cancel()

        watched.listen(fallen_silent)
        try:
            response: worker_pb2.EmbedResponse = await call
        except asyncio.CancelledError:
            call.cancel()
            task = asyncio.current_task()
            if is_silent and not (task is not None and task.cancelling()):
                raise silent() from None
            raise
        except MeshError as error:
            if is_silent:
                raise silent() from error
            if error.reason is Reason.UPSTREAM_UNAVAILABLE and not await call.initial_metadata():
                # A worker names its lane before it looks at the work: this call never came that far.
                raise MeshError(error.reason, error.message, cause=Cause.UNREACHABLE.value) from error
            raise
        finally:
            watched.end()
        watched.moved()
        return response
