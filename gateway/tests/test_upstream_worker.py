"""Calls to workers: what a call that broke says of the worker it was made to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from serin.worker.v1 import worker_pb2_grpc
from serin_gateway.ask import Sampling
from serin_gateway.failures import Cause, cause_of
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.pulses import LOST_TICKS, SILENT_TICKS, Pulses
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.upstream.worker import GrpcWork, GrpcWorkers, Watched
from serin_gateway.worker import WorkOrder
from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError

LANE = small_lane()
SCOPE = CallScope("r", "small", LANE, "t", 20)
ORDER = WorkOrder((1, 2, 3), Sampling(), cache_group="t", cache_salt="", priority=0)


class FakeCall:
    """A call that says nothing until it is cancelled."""

    def __init__(self) -> None:
        self.num_cancels = 0

    def cancel(self) -> None:
        """Count."""
        self.num_cancels += 1


class Breaking(worker_pb2_grpc.WorkerServiceServicer):
    """A foreign server at a worker's address, which ends each call as a broken transport would."""

    def __init__(self, *, accepts: bool) -> None:
        self._accepts = accepts

    async def Generate(self, request, context):  # noqa: N802
        """Name the lane, as a worker does before it begins, or not even that; then break."""
        if self._accepts:
            await context.send_initial_metadata(((LANE_KEY, LANE.lane),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield


@asynccontextmanager
async def foreign(*, accepts: bool) -> AsyncIterator[int]:
    """Its port."""
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Breaking(accepts=accepts), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def hanging_up() -> AsyncIterator[int]:
    """The port of somebody who takes connections and closes them without a word."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def cause_at(port: int) -> Cause | None:
    """Why the worker at a port let go of a prompt."""
    channels = Channels(GatewaySettings(), FixedTargets({"worker.small": f"127.0.0.1:{port}"}))
    work = GrpcWorkers(channels, Pulses()).generate(SCOPE, LANE.workers[0], ORDER, lambda: True)
    try:
        with pytest.raises(MeshError) as raised:
            async for _ in work:
                pass
    finally:
        await channels.close()
    return cause_of(raised.value)


async def test_a_call_that_broke_before_it_was_accepted_killed_nobody():
    """Whatever words the transport finds for it: no connection, a broken one, or a stream refused at once."""
    async with hanging_up() as port:
        assert await cause_at(port) is Cause.UNREACHABLE
    assert await cause_at(port) is Cause.UNREACHABLE  # nobody is there any more
    async with foreign(accepts=False) as port:
        assert await cause_at(port) is Cause.UNREACHABLE


async def test_a_worker_that_had_accepted_the_work_died_of_it():
    """It had named its lane: what came after may be the request's doing."""
    async with foreign(accepts=True) as port:
        assert await cause_at(port) is Cause.KILLED


@pytest.mark.parametrize(("may_move_after", "ends_after"), [(0, SILENT_TICKS), (9, 9), (99, LOST_TICKS)])
def test_a_silent_worker_keeps_its_work_while_nobody_else_could_take_it(may_move_after: int, ends_after: int):
    """It may only stand still for a moment; once another one can go on, or after 15 s, the call is cancelled."""
    pulses, call, num_ticks = Pulses(), FakeCall(), 0
    endpoint = LANE.workers[0].endpoint
    pulses.heard(endpoint)
    work = GrpcWork(call, Watched(pulses, endpoint, {}), lambda: num_ticks >= may_move_after, FakeCall)
    work._watched.listen(work._fallen_silent)
    while not call.num_cancels:
        num_ticks += 1
        pulses.tick()
    assert num_ticks == ends_after
