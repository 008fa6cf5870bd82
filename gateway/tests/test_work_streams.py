"""Requests that share a stream to their worker: each fares as with a call of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_gateway.ask import Sampling
from serin_gateway.failures import Cause, cause_of
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream import work_streams
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_gateway.upstream.work_stream import MAX_BYTES, PAUSE_TOKENS, WorkStream
from serin_gateway.upstream.worker import GrpcWorkers
from serin_gateway.worker import TokensMade, WorkDone, WorkOrder
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running
from serin_worker.pulled import pulled
from serin_worker.work_stream import WorkStreams

LANE = small_lane()
WORKER = LANE.workers[0]
PIECE = 64
"""Ids that a script makes at a time."""


class Streaming(worker_pb2_grpc.WorkerServiceServicer):
    """A worker on real streams; an order's account says what it does with it."""

    def __init__(self) -> None:
        self.streams = WorkStreams()
        self.num_streams = 0
        self.num_calls = 0
        self.accounts: list[str] = []
        self.num_made = 0
        self.ended: list[str] = []
        self.name = WORKER.instance
        self.moved = asyncio.Condition()

    async def Work(self, request_iterator, context):  # noqa: N802
        """Many requests."""
        self.num_streams += 1
        async with self.streams.serving(lambda request: pulled(self.made(request)), context) as stream:
            async for response in stream.responses(request_iterator):
                yield response

    async def made(self, request: worker_pb2.GenerateRequest) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Follow the script: a number of ids, ids without an end, nothing, or a failure."""
        self.accounts.append(request.account)
        try:
            yield worker_pb2.GenerateResponse(started=worker_pb2.GenerationStarted(worker=self.name))
            if request.account == "fails":
                raise MeshError(Reason.NUMERICS_FAILED, "no numbers", parameter="prompt")
            num_ids = {"endless": 1 << 30, "waits": 0}.get(request.account, 4)
            for position in range(0, num_ids, PIECE):
                ids = list(range(position, min(position + PIECE, num_ids)))
                self.num_made += len(ids)
                delta = worker_pb2.GenerationDelta(first_position=position, token_ids=ids)
                yield worker_pb2.GenerateResponse(delta=delta)
                if num_ids > PIECE:
                    await asyncio.sleep(0)
            if request.account == "waits":
                await asyncio.Event().wait()
            yield worker_pb2.GenerateResponse(choice_finished=worker_pb2.ChoiceFinished())
            yield worker_pb2.GenerateResponse(summary=worker_pb2.GenerationSummary())
        finally:
            self.ended.append(request.account)
            async with self.moved:
                self.moved.notify_all()

    async def until_ended(self, num: int) -> None:
        """Wait until so many scripts are over, however they ended."""
        async with asyncio.timeout(60), self.moved:
            await self.moved.wait_for(lambda: len(self.ended) >= num)


class BeforeStreams(Streaming):
    """A worker of the version before: it knows calls of their own alone."""

    async def Work(self, request_iterator, context):  # noqa: N802
        """Not known."""
        self.num_streams += 1
        raise NotImplementedError
        yield

    async def Generate(self, request, context):  # noqa: N802
        """One request."""
        self.num_calls += 1
        async for response in self.made(request):
            yield response


class Breaking(worker_pb2_grpc.WorkerServiceServicer):
    """A foreign server that breaks off once it has read some begins, having accepted the first ones of them."""

    def __init__(self, num_begun: int, num_accepted: int) -> None:
        self._num_begun = num_begun
        self._num_accepted = num_accepted

    async def Work(self, request_iterator, context):  # noqa: N802
        """Read, accept, break."""
        begun: list[int] = []
        async for request in request_iterator:
            begun += [frame.work_id for frame in request.frames if frame.HasField("begin")]
            if len(begun) >= self._num_begun:
                break
        news = [worker_pb2.WorkNews(work_id=work_id, lane=LANE.lane) for work_id in begun[: self._num_accepted]]
        if news:
            yield worker_pb2.WorkResponse(news=news)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@asynccontextmanager
async def workers_at(address: str) -> AsyncIterator[GrpcWorkers]:
    """A gateway's view of the worker at an address."""
    channels = Channels(GatewaySettings(), FixedTargets({"worker.small": address}))
    workers = GrpcWorkers(channels, Pulses())
    try:
        yield workers
    finally:
        await workers.close()
        await channels.close()


@asynccontextmanager
async def serving(service: worker_pb2_grpc.WorkerServiceServicer) -> AsyncIterator[GrpcWorkers]:
    """A worker over the whole onion, and a gateway's view of it."""
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as host,
        workers_at(host.address) as workers,
    ):
        yield workers


def work_on(workers: GrpcWorkers, account: str = "", timeout_s: float = 20):
    """Begin work; the account says what the worker does with it."""
    scope = CallScope("r", "small", LANE, "t", timeout_s)
    order = WorkOrder((1, 2, 3), Sampling(), cache_group="t", cache_salt="", priority=0, account=account)
    return workers.generate(scope, WORKER, order, lambda: True)


async def events_of(work) -> list:
    """All of it."""
    return [event async for event in work]


async def failure_of(work) -> MeshError:
    """What it ended with."""
    with pytest.raises(MeshError) as raised:
        await events_of(work)
    return raised.value


async def test_many_requests_share_one_stream_and_fail_alone():
    """All of them whole but the one that failed, with its reason and facts."""
    service = Streaming()
    async with serving(service) as workers:
        works = [work_on(workers) for _ in range(20)]
        failing = work_on(workers, "fails")
        for events in await asyncio.gather(*(events_of(work) for work in works)):
            assert [event.token_ids for event in events if isinstance(event, TokensMade)] == [[0, 1, 2, 3]]
            assert isinstance(events[-1], WorkDone)
        failure = await failure_of(failing)
        assert (failure.reason, failure.metadata["parameter"]) == (Reason.NUMERICS_FAILED, "prompt")
        assert cause_of(failure) is None  # the request's own, as it would be from a call of its own
    assert (service.num_streams, len(service.accounts)) == (1, 21)


async def test_what_begins_at_once_goes_in_messages_of_bounded_size():
    """Grammars and outputs before a resume count as prompts do: a message too large would fail all on the stream."""
    sizes: list[int] = []
    written = asyncio.Condition()

    class Call:
        async def write(self, request: worker_pb2.WorkRequest) -> None:
            async with written:
                sizes.append(request.ByteSize())
                written.notify_all()

        async def read(self) -> worker_pb2.WorkResponse:
            return await asyncio.get_running_loop().create_future()

        def cancel(self) -> None:
            pass

    stream = WorkStream(Call(), WORKER.instance, lambda stream, error: None)
    grammar = "x" * (MAX_BYTES // 3)
    for number in range(10):
        request = worker_pb2.GenerateRequest(request_id=str(number))
        request.grammar.text = grammar
        stream.begin(request, 20, {})
    async with asyncio.timeout(60), written:
        await written.wait_for(lambda: sum(sizes) > 10 * len(grammar))
    await stream.close()
    assert len(sizes) == 5
    assert max(sizes) <= MAX_BYTES


async def test_who_reads_slowly_is_paused_alone():
    """What is made for it is bounded, others' news go on; once it reads, nothing is missing."""
    service = Streaming()
    async with serving(service) as workers:
        slow = work_on(workers, "endless")
        events = aiter(slow)
        await anext(events)
        for _ in range(40):  # each a round trip on the same stream
            assert isinstance((await events_of(work_on(workers)))[-1], WorkDone)
        made = service.num_made
        for _ in range(20):
            await events_of(work_on(workers))
        assert service.num_made - made <= 20 * 4
        assert made < 40 * PAUSE_TOKENS
        position = 0
        async for event in events:
            assert (event.first_position, event.token_ids[0]) == (position, position)
            position += len(event.token_ids)
            if position > made + 10 * PAUSE_TOKENS:
                break
        slow.abort()
        await service.until_ended(61)


@pytest.mark.parametrize("how", ["abort", "deadline"])
async def test_work_that_is_ended_ends_at_the_worker_and_not_its_neighbours(how: str):
    """By its caller or its deadline; the stream stays."""
    service = Streaming()
    async with serving(service) as workers:
        work = work_on(workers, "waits", timeout_s=60 if how == "abort" else 2)
        events = aiter(work)
        await anext(events)
        if how == "abort":
            work.abort()
            assert [event async for event in events] == []
        else:
            with pytest.raises(MeshError) as raised:
                await anext(events)
            assert raised.value.reason is Reason.DEADLINE_EXCEEDED
        await service.until_ended(1)
        await events_of(work_on(workers))
    assert (service.ended, service.num_streams) == (["waits", ""], 1)


async def test_a_broken_stream_blames_those_that_were_accepted():
    """Each request on it fails as its own call would have: the worker may have died of the one that it had begun."""
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Breaking(num_begun=2, num_accepted=1), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with workers_at(f"127.0.0.1:{port}") as workers:
        works = [work_on(workers) for _ in range(2)]
        failures = await asyncio.gather(*(failure_of(work) for work in works))
    assert [cause_of(failure) for failure in failures] == [Cause.KILLED, Cause.UNREACHABLE]
    await server.stop(None)


async def test_a_worker_of_the_version_before_gets_calls_and_is_asked_once():
    """What was begun on the stream goes on as calls; what follows begins so."""
    service = BeforeStreams()
    async with serving(service) as workers:
        for _ in range(2):
            for events in await asyncio.gather(*(events_of(work_on(workers)) for _ in range(3))):
                assert isinstance(events[-1], WorkDone)
    assert (service.num_streams, service.num_calls) == (1, 6)


async def test_streams_that_nobody_needs_are_closed(monkeypatch):
    """After a while without work, or when they are old; one with work stays until that is over."""
    service = Streaming()
    async with serving(service) as workers:
        streams = workers._streams
        waiting = work_on(workers, "waits")
        await anext(aiter(waiting))
        monkeypatch.setattr(work_streams, "IDLE_S", -1.0)
        await streams.check(asyncio.get_running_loop().time())
        assert len(streams._open) == 1
        monkeypatch.setattr(work_streams, "STREAM_AGE_S", -1.0)
        await events_of(work_on(workers))
        assert service.num_streams == 2
        waiting.abort()
        monkeypatch.setattr(work_streams, "STREAM_AGE_S", 600.0)
        await streams.check(asyncio.get_running_loop().time())
        assert not streams._open
        await service.until_ended(2)


async def test_another_worker_that_took_the_call_gets_no_more_of_what_was_not_meant_for_it():
    """The one that was meant had gone; what comes next is routed anew."""
    service = Streaming()
    service.name = "somebody else"
    async with serving(service) as workers:
        for _ in range(2):
            await events_of(work_on(workers))
    assert service.num_streams == 2


async def test_a_gateway_that_closes_fails_what_is_open():
    """Nothing waits for ever."""
    service = Streaming()
    async with serving(service) as workers:
        events = aiter(work_on(workers, "waits"))
        await anext(events)
        await workers.close()
        with pytest.raises(MeshError) as raised:
            await anext(events)
    assert raised.value.reason is Reason.NOT_READY
