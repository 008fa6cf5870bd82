"""Calls for vectors: cancelled with their request, left when their worker falls silent, checked when they answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_gateway.catalog import Worker
from serin_gateway.failures import Cause, cause_of
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.embedding import GrpcEmbedders
from serin_gateway.upstream.pulses import SILENT_TICKS, Pulses
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason

LANE = small_lane(num_dimensions=3)
SCOPE = CallScope("r", "small", LANE, "t", 20)


class Computing(worker_pb2_grpc.WorkerServiceServicer):
    """A worker whose vectors have as many ones as are asked for, or as it has; it may be held or break."""

    def __init__(self) -> None:
        self.num_dimensions = 3
        self.breaks = False
        self.asked, self.left, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.go.set()

    async def Embed(self, request, context):  # noqa: N802
        """Name the lane, as a worker does; then answer when it may."""
        await context.send_initial_metadata(((LANE_KEY, LANE.lane),))
        self.asked.set()
        try:
            await self.go.wait()
        finally:
            self.left.set()
        if self.breaks:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        size = request.dimension_count or self.num_dimensions
        return worker_pb2.EmbedResponse(embeddings=[worker_pb2.Embedding(values=[1.0] * size) for _ in request.runs])


@asynccontextmanager
async def computing(service: Computing) -> AsyncIterator[tuple[GrpcEmbedders, Worker, Pulses]]:
    """What calls it, its address, and its pulse."""
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channels, pulses = Channels(GatewaySettings(), FixedTargets({"worker.small": f"127.0.0.1:{port}"})), Pulses()
    try:
        yield GrpcEmbedders(channels, pulses), Worker("w", f"127.0.0.1:{port}", "c", 8), pulses
    finally:
        service.go.set()
        await channels.close()
        await server.stop(None)


async def test_vectors_are_what_was_asked_for():
    """As many as inputs, each as long as it should be; anything else is a defect, not an answer."""
    async with computing(service := Computing()) as (embedders, worker, _):
        vectors = await embedders.embed(SCOPE, worker, [[1], [2, 3]], 0, lambda: True)
        assert [vector.tolist() for vector in vectors] == [[1, 1, 1]] * 2
        assert [len(one) for one in await embedders.embed(SCOPE, worker, [[1]], 2, lambda: True)] == [2]
        service.num_dimensions = 4
        with pytest.raises(MeshError) as failed:
            await embedders.embed(SCOPE, worker, [[1]], 0, lambda: True)
        assert failed.value.reason is Reason.INTERNAL


async def test_a_cancelled_request_cancels_its_call():
    """The worker hears of it."""
    async with computing(service := Computing()) as (embedders, worker, _):
        service.go.clear()
        task = asyncio.create_task(embedders.embed(SCOPE, worker, [[1]], 0, lambda: True))
        await service.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.left.wait()


async def test_a_silent_worker_is_left_when_another_could_take_over():
    """Not before; then the cause is named."""
    async with computing(service := Computing()) as (embedders, worker, pulses):
        service.go.clear()
        others: list[str] = []
        task = asyncio.create_task(embedders.embed(SCOPE, worker, [[1]], 0, lambda: bool(others)))
        await service.asked.wait()
        pulses.heard(worker.endpoint)
        for _ in range(SILENT_TICKS):
            pulses.tick()
        await asyncio.sleep(0)
        assert not task.done()
        others.append("w2")
        pulses.tick()
        with pytest.raises(MeshError) as failed:
            await task
        assert cause_of(failed.value) is Cause.SILENT
        assert not pulses.is_awaited(worker.endpoint)


async def test_a_call_that_broke_says_how_far_it_came():
    """Killed where the worker had taken it; unreachable where nobody had."""
    async with computing(service := Computing()) as (embedders, worker, _):
        service.breaks = True
        with pytest.raises(MeshError) as failed:
            await embedders.embed(SCOPE, worker, [[1]], 0, lambda: True)
        assert cause_of(failed.value) is Cause.KILLED
    channels = Channels(GatewaySettings(), FixedTargets({"worker.small": "127.0.0.1:1"}))
    with pytest.raises(MeshError) as failed:
        await GrpcEmbedders(channels, Pulses()).embed(SCOPE, worker, [[1]], 0, lambda: True)
    assert cause_of(failed.value) is Cause.UNREACHABLE
    await channels.close()
