"""Workers over gRPC (`serin.worker.v1`). Work on a worker that falls silent fails. Knows nothing about placing."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker
from serin_gateway.failures import Cause
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.targets import Channels, pinned_metadata
from serin_gateway.upstream.wire import from_finish, from_logprob, to_prepared, to_sampling, to_segments
from serin_gateway.worker import ChoiceMade, TokensMade, WorkDone, WorkEvent, WorkOrder, WorkStarted


class GrpcWorkers:
    """Calls workers through the control plane's routes, pinned to the one that was chosen."""

    def __init__(self, channels: Channels, pulses: Pulses) -> None:
        self._channels = channels
        self._pulses = pulses

    def generate(self, scope: CallScope, worker: Worker, order: WorkOrder, may_move: Callable[[], bool]) -> "GrpcWork":
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
            grammar=to_prepared(order.grammar),
            account=order.account,
        )
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
        call = stub.Generate(request, timeout=max(0.001, scope.timeout_s), metadata=pinned_metadata(scope, worker))
        endpoints = {other.instance: other.endpoint for other in scope.lane.workers}
        return GrpcWork(call, Watched(self._pulses, worker.endpoint, endpoints), may_move)


class Watched:
    """Listens for the silence of whoever works: the worker that was chosen, or the one that says it began.

    Args:
        pulses: signs of life.
        endpoint: of the worker that was chosen.
        endpoints: of all workers of the lane, by instance.
    """

    def __init__(self, pulses: Pulses, endpoint: str, endpoints: Mapping[str, str]) -> None:
        self._pulses = pulses
        self._endpoint = endpoint
        self._endpoints = endpoints
        self._on_silence: Callable[[], None] | None = None

    def listen(self, on_silence: Callable[[], None]) -> None:
        """Call back when the worker falls silent."""
        self._on_silence = on_silence
        self._pulses.listen(self._endpoint, on_silence)

    def begun_by(self, instance: str) -> None:
        """Listen to this instance instead, if it is another one."""
        endpoint = self._endpoints.get(instance, self._endpoint)
        if endpoint != self._endpoint and self._on_silence is not None:
            self._pulses.forget(self._endpoint, self._on_silence)
            self._pulses.listen(endpoint, self._on_silence)
            self._endpoint = endpoint

    def moved(self) -> None:
        """Something came from it."""
        self._pulses.moved(self._endpoint)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more is hoped for."""
        return self._pulses.is_lost(self._endpoint)

    def end(self) -> None:
        """Listen no more."""
        if self._on_silence is not None:
            self._pulses.forget(self._endpoint, self._on_silence)
            self._on_silence = None


class GrpcWork:
    """One running `Generate` call."""

    def __init__(self, call: Any, watched: Watched, may_move: Callable[[], bool]) -> None:
        self._call = call
        self._watched = watched
        self._may_move = may_move
        self._is_aborted = False
        self._is_silent = False

    async def __aiter__(self) -> AsyncIterator[WorkEvent]:
        """The events in order; ends without an error after :meth:`abort`."""
        self._watched.listen(self._fallen_silent)
        try:
            async for response in self._call:
                event = _event(response)
                if isinstance(event, WorkStarted):
                    self._watched.begun_by(event.worker)
                self._watched.moved()
                if event is not None:
                    yield event
                if isinstance(event, WorkDone):
                    return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._is_aborted:
                return  # it is the call that was cancelled, by us, not the task
            if self._is_silent:
                raise silent() from None
            raise
        except MeshError as error:
            if self._is_aborted:
                return
            if error.reason is Reason.UPSTREAM_UNAVAILABLE and not await self._call.initial_metadata():
                # A worker names its lane before it looks at the work: this call never came that far, whatever the
                # transport says of it (no connection, one that broke, a route that changed under it).
                raise MeshError(error.reason, error.message, cause=Cause.UNREACHABLE.value) from error
            raise
        finally:
            self._watched.end()
        if self._is_silent:
            raise silent()
        if not self._is_aborted:
            raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker's stream ended without a summary")

    def abort(self) -> None:
        """Have the work stopped at once."""
        self._is_aborted = True
        self._watched.end()
        self._call.cancel()

    def _fallen_silent(self) -> None:
        # With nobody to go on elsewhere, a worker that stands still for a moment is better than none.
        if self._may_move() or self._watched.is_lost:
            self._is_silent = True
            self._call.cancel()


def _event(response: worker_pb2.GenerateResponse) -> WorkEvent | None:
    """An event of the contract as ours; None: a kind that only newer gateways know."""
    match response.WhichOneof("event"):
        case "delta":
            delta = response.delta
            logprobs = [from_logprob(one) for one in delta.logprobs]
            return TokensMade(delta.choice_index, delta.first_position, list(delta.token_ids), logprobs)
        case "choice_finished":
            end = response.choice_finished
            stop_token_id = end.stop_token_id if end.HasField("stop_token_id") else None
            return ChoiceMade(end.choice_index, from_finish(end.finish_reason), stop_token_id)
        case "started":
            started = response.started
            return WorkStarted(started.worker, started.cached_token_count, started.seed, started.numerics_class)
        case "summary":
            summary = response.summary
            return WorkDone(
                summary.queue_seconds, summary.prefill_seconds, summary.decode_seconds, summary.preemption_count
            )
        case _:
            return None


def silent() -> MeshError:
    """A worker says nothing any more."""
    return MeshError(
        Reason.UPSTREAM_UNAVAILABLE, "the worker has said nothing for some seconds", cause=Cause.SILENT.value
    )
