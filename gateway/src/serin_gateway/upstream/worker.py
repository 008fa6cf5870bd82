"""Workers over gRPC (`serin.worker.v1`). Work on a worker that falls silent fails. Knows nothing about placing."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, Self

from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh import telemetry
from serin_mesh.call import remaining_s
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker
from serin_gateway.failures import Cause
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.targets import Channels, call_metadata, pinned_metadata
from serin_gateway.upstream.wire import from_finish, from_logprob, to_prepared, to_sampling, to_segments
from serin_gateway.upstream.work_stream import StreamsUnknown, unaccepted
from serin_gateway.upstream.work_streams import WorkStreams
from serin_gateway.worker import ChoiceMade, TokensMade, WorkDone, WorkEvent, WorkOrder, WorkStarted


class GrpcWorkers:
    """Calls workers through the control plane's routes, pinned to the one that was chosen."""

    def __init__(self, channels: Channels, pulses: Pulses) -> None:
        self._channels = channels
        self._pulses = pulses
        self._streams = WorkStreams(channels)

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
        left_s = remaining_s()
        timeout_s = max(0.001, scope.timeout_s if left_s is None else min(scope.timeout_s, left_s))

        def own_call() -> OwnCall:
            stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
            return OwnCall(stub.Generate(request, timeout=timeout_s, metadata=pinned_metadata(scope, worker)))

        stream = self._streams.to(scope, worker)
        line: Line
        if stream is None:
            line = own_call()
        else:
            line = stream.begin(request, timeout_s, dict((*call_metadata(scope), *telemetry.inject())))
        endpoints = {other.instance: other.endpoint for other in scope.lane.workers}
        return GrpcWork(line, Watched(self._pulses, worker.endpoint, endpoints), may_move, own_call)

    async def watch(self) -> None:
        """Close streams that nobody needs, for as long as this task lives."""
        await self._streams.watch()

    async def close(self) -> None:
        """Close all streams; work on them fails."""
        await self._streams.close()


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


class Line(Protocol):
    """What a worker says of one request: a call of its own, or its part of a stream."""

    def __aiter__(self) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """The events; none after :meth:`cancel`.

        Raises:
            MeshError: while iterating: it failed.
            StreamsUnknown: while iterating: it wants a call of its own.
        """

    def cancel(self) -> object:
        """Have it stopped."""


class OwnCall:
    """A `Generate` call for one request."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._responses = call.__aiter__()
        self._is_cancelled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> worker_pb2.GenerateResponse:
        """The next event.

        Raises:
            MeshError: it failed.
        """
        try:
            response: worker_pb2.GenerateResponse = await self._responses.__anext__()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_cancelled and not (task and task.cancelling()):
                raise StopAsyncIteration from None  # it is the call that was cancelled, by us, not the task
            raise
        except MeshError as error:
            if self._is_cancelled:
                raise StopAsyncIteration from None
            if not await self._call.initial_metadata():
                raise unaccepted(error) from error
            raise
        return response

    def cancel(self) -> None:
        """Have it stopped."""
        self._is_cancelled = True
        self._call.cancel()


class GrpcWork:
    """Work on one request.

    Args:
        line: what the worker says of it.
        watched: listens for the worker's silence.
        may_move: whether the work could go on elsewhere now.
        own_call: begins it as a call of its own, where the worker knows nothing else.
    """

    def __init__(
        self,
        line: Line,
        watched: Watched,
        may_move: Callable[[], bool],
        own_call: Callable[[], Line],
    ) -> None:
        self._line = line
        self._watched = watched
        self._may_move = may_move
        self._own_call = own_call
        self._is_aborted = False
        self._is_silent = False

    async def __aiter__(self) -> AsyncIterator[WorkEvent]:
        """The events in order; ends without an error after :meth:`abort`."""
        self._watched.listen(self._fallen_silent)
        try:
            while True:
                try:
                    async for response in self._line:
                        event = _event(response)
                        if isinstance(event, WorkStarted):
                            self._watched.begun_by(event.worker)
                        self._watched.moved()
                        if event is not None:
                            yield event
                        if isinstance(event, WorkDone):
                            return
                    break
                except StreamsUnknown:
                    self._line = self._own_call()
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
        self._line.cancel()

    def _fallen_silent(self) -> None:
        # With nobody to go on elsewhere, a worker that stands still for a moment is better than none.
        if self._may_move() or self._watched.is_lost:
            self._is_silent = True
            self._line.cancel()


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
