"""Workers over gRPC (`serin.worker.v1`). Knows nothing about placing or resuming."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.targets import Channels, pinned_metadata
from serin_gateway.upstream.wire import from_finish, from_logprob, to_sampling, to_segments
from serin_gateway.worker import ChoiceMade, TokensMade, WorkDone, WorkEvent, WorkOrder, WorkStarted


class GrpcWorkers:
    """Calls workers through the control plane's routes, pinned to the one that was chosen."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def generate(self, scope: CallScope, worker: Worker, order: WorkOrder) -> "GrpcWork":
        """Begin work."""
        request = worker_pb2.GenerateRequest(
            request_id=f"{scope.request_id[:100]}-{secrets.token_hex(6)}",
            vocabulary_digest=scope.lane.vocabulary_digest,
            prompt=to_segments(order.prompt),
            sampling=to_sampling(order.sampling),
            prior_outputs=[
                tokens_pb2.PriorOutput(
                    choice_index=prior.choice_index, token_ids=prior.token_ids, finished=prior.finished
                )
                for prior in order.prior_outputs
            ],
            cache_group=order.cache_group,
            cache_salt=order.cache_salt,
            tenant_key=scope.tenant_key,
            priority=order.priority,
            kv_source=order.kv_source,
            kv_digest=scope.lane.kv_digest,
        )
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
        return GrpcWork(
            stub.Generate(request, timeout=max(0.001, scope.timeout_s), metadata=pinned_metadata(scope, worker))
        )


class GrpcWork:
    """One running `Generate` call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._is_aborted = False

    async def __aiter__(self) -> AsyncIterator[WorkEvent]:
        """The events in order; ends without an error after :meth:`abort`."""
        try:
            async for response in self._call:
                kind = response.WhichOneof("event")
                if kind == "delta":
                    delta = response.delta
                    yield TokensMade(
                        delta.choice_index,
                        delta.first_position,
                        list(delta.token_ids),
                        [from_logprob(one) for one in delta.logprobs],
                    )
                elif kind == "choice_finished":
                    end = response.choice_finished
                    stop_token_id = end.stop_token_id if end.HasField("stop_token_id") else None
                    yield ChoiceMade(end.choice_index, from_finish(end.finish_reason), stop_token_id)
                elif kind == "started":
                    started = response.started
                    yield WorkStarted(started.worker, started.cached_token_count, started.seed)
                elif kind == "summary":
                    summary = response.summary
                    yield WorkDone(
                        summary.queue_seconds,
                        summary.prefill_seconds,
                        summary.decode_seconds,
                        summary.preemption_count,
                    )
                    return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_aborted and (task is None or not task.cancelling()):
                return  # it is the call that was cancelled, by us, not the task
            raise
        except MeshError:
            if self._is_aborted:
                return
            raise
        if not self._is_aborted:
            raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker's stream ended without a summary")

    def abort(self) -> None:
        """Have the work stopped at once."""
        self._is_aborted = True
        self._call.cancel()
