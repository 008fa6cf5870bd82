"""The onion: every kind of call passes all layers once, and what layers promise holds for each kind."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.call import caller, remaining_s, request_id, served_call
from serin_mesh.errors import MeshError, Reason
from serin_mesh.interceptors import Onion
from serin_mesh.readiness import Readiness
from serin_mesh.testing import running


def test_layers_wrap_in_order_and_messages_are_not_wrapped(echo) -> None:
    """The first layer is the outermost; a method is wrapped once, however often it is called."""
    trail = []

    def layer(name):
        def wrap(handle):
            trail.append(f"built {name}")

            async def around(rpc):
                trail.append(f"in {name}")
                try:
                    return await handle(rpc)
                finally:
                    trail.append(f"out {name}")

            return around

        return wrap

    async def drive() -> None:
        server = grpc.aio.server(interceptors=[Onion([layer("a"), layer("b")])])
        echo.register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.unary_stream("/serin.test.v1.EchoService/Stream")
            for _ in range(2):
                assert [m async for m in stream(b"x", timeout=5)] == [b"x"] * 3
        await server.stop(None)

    asyncio.run(drive())
    assert trail == ["built b", "built a", *["in a", "in b", "out b", "out a"] * 2]


async def test_every_kind_of_call_is_answered(echo, stub_of) -> None:
    """Unary, both streaming directions, bidirectional, in both of gRPC's styles."""

    async def requests():
        for number in range(3):
            yield str(number).encode()

    async with running(echo.register) as server, server.connect() as channel:
        stub = stub_of(channel)
        assert await stub.unary(b"x") == b"x"
        assert [m async for m in stub.stream(b"x")] == [b"x"] * 3
        assert await stub.collect(requests()) == b"0,1,2"
        assert [m async for m in stub.chat(requests())] == [b"0", b"1", b"2"]
        assert [m async for m in stub.read_write(requests())] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("path", ["/serin.test.v1.EchoService/Nothing", "/nobody.Service/Method", "/", "/a/b/c"])
async def test_a_method_that_nobody_serves_says_so_like_every_error(echo, path: str) -> None:
    """UNIMPLEMENTED with one ErrorInfo, for every kind of call; no message of it is read, and none is waited for."""

    async def silence():
        await asyncio.Event().wait()
        yield b""

    async with running(echo.register) as server, grpc.aio.insecure_channel(server.address) as channel:
        for call in (
            channel.unary_unary(path)(b"x", timeout=10),
            channel.unary_stream(path)(b"x", timeout=10).read(),
            channel.stream_unary(path)(silence(), timeout=10),
            channel.stream_stream(path)(silence(), timeout=10).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            rich = rpc_status.from_call(refused.value)
            info = error_details_pb2.ErrorInfo()
            assert [detail.Unpack(info) for detail in rich.details] == [True]
            assert (info.domain, info.reason) == ("serin", Reason.NOT_IMPLEMENTED)


async def test_reading_and_writing_by_hand(echo, stub_of) -> None:
    """A conversation can be led message by message."""
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).chat()
        for text in (b"a", b"b"):
            await call.write(text)
            assert await call.read() == text
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()


@pytest.mark.parametrize("kind", ["unary", "stream", "chat", "read_write"])
async def test_a_client_that_cancels_frees_the_handler(echo, stub_of, kind: str) -> None:
    """Cancelling the call cancels the handler at once, whatever it waits for."""
    async with running(echo.register) as server, server.connect() as channel:
        call = getattr(stub_of(channel), kind)(b"hang") if kind in ("unary", "stream") else None
        if call is None:
            call = getattr(stub_of(channel), kind)()
            await call.write(b"hang")
        await echo.started.wait()
        assert call.cancel()
        await echo.cancelled.wait()
        assert call.cancelled()


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_cancelling_the_task_that_waits_cancels_the_call(echo, stub_of, kind: str) -> None:
    """Nothing goes on downstream for somebody who has left."""
    async with running(echo.register) as server, server.connect() as channel:

        async def wait() -> None:
            call = getattr(stub_of(channel), kind)(b"hang")
            if kind == "unary":
                await call
            async for _ in call:
                pass

        task = asyncio.create_task(wait())
        await echo.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await echo.cancelled.wait()


async def test_cancel_travels_through_two_hops(echo, stub_of) -> None:
    """The client of a client leaves: the last handler is cancelled."""
    front = type(echo)()
    async with running(echo.register) as behind, behind.connect() as inner:

        async def forward(request, context):
            async for message in stub_of(inner).stream(request):
                yield message

        front.stream = forward
        async with running(front.register) as first, first.connect() as channel:
            call = stub_of(channel).stream(b"hang")
            assert await call.read() == b"hang"
            await echo.started.wait()
            call.cancel()
            await echo.cancelled.wait()


async def test_a_generator_is_closed_when_its_client_leaves(echo, stub_of) -> None:
    """The ``finally`` of a streaming handler runs at once, not at some later collection."""
    closed = asyncio.Event()

    async def stream(request, context):
        try:
            while True:
                yield request
        finally:
            closed.set()

    echo.stream = stream
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).stream(b"x")
        assert await call.read() == b"x"
        call.cancel()
        await closed.wait()


async def test_a_call_without_a_deadline_is_refused(echo, stub_of) -> None:
    """The reason says what to do; watches and infrastructure are exempt."""
    async with running(echo.register) as server, grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel).unary(b"x")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "deadline" in caught.value.details()
        assert [m async for m in stub_of(channel).watch(b"x")] == [b"x"] * 3


async def test_a_default_deadline_ends_a_call(echo, stub_of) -> None:
    """A public door can give callers a deadline who bring none."""
    async with (
        running(echo.register, default_deadline_s=0.05) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        assert await stub_of(channel).unary(b"x") == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel).unary(b"hang")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert echo.cancelled.is_set()


async def test_a_handler_knows_its_call(echo, stub_of) -> None:
    """Caller, request id, time left and method are at hand inside, and nothing is outside."""

    async def unary(request, context):
        call = served_call()
        left_s = remaining_s()
        return f"{call.method} {request_id()} {caller().trusted} {0 < left_s < 8}".encode()

    echo.unary = unary
    async with running(echo.register) as server, server.connect() as channel:
        said = await stub_of(channel).unary(b"x", timeout=7, metadata=(("serin-request-id", "req-1"),))
    assert said.decode() == "/serin.test.v1.EchoService/Unary req-1 True True"
    assert (served_call(), request_id(), remaining_s(), caller().trusted) == (None, "", None, False)


async def test_an_odd_request_id_is_replaced(echo, stub_of) -> None:
    """Whatever a caller sends as identifier, logs stay readable."""

    async def unary(request, context):
        return request_id().encode()

    echo.unary = unary
    async with running(echo.register) as server, grpc.aio.insecure_channel(server.address) as channel:
        said = await stub_of(channel).unary(b"x", timeout=5, metadata=(("serin-request-id", "x" * 129),))
    assert said.startswith(b"req-")


async def test_calls_are_refused_until_ready(echo, stub_of) -> None:
    """NOT_READY says what is going on; health is answered all the while."""
    readiness = Readiness()
    readiness.starting("loading weights", 0.4)
    async with running(echo.register, readiness=readiness) as server, server.connect() as channel:
        with pytest.raises(MeshError, match=r"loading weights, 40%") as caught:
            await stub_of(channel).unary(b"x")
        assert caught.value.reason is Reason.NOT_READY
        assert caught.value.metadata["retry_after_s"]
        readiness.ready()
        assert await stub_of(channel).unary(b"x") == b"x"


async def test_an_unwritten_method_is_not_implemented() -> None:
    """Methods of a contract that a service leaves out say so with a reason."""

    def register(server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(worker_pb2_grpc.WorkerServiceServicer(), server)

    async with running(register) as server, server.connect() as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        with pytest.raises(MeshError) as caught:
            await stub.DescribeWorker(worker_pb2.DescribeWorkerRequest())
        assert caught.value.reason is Reason.NOT_IMPLEMENTED
        with pytest.raises(MeshError) as caught:
            async for _ in stub.Generate(worker_pb2.GenerateRequest()):
                pass
        assert caught.value.reason is Reason.NOT_IMPLEMENTED


async def test_a_stalled_service_refuses_and_a_drain_before_readiness_too(echo, stub_of) -> None:
    """What cannot serve does not take calls; a drain of a service that was ready still does."""
    alive = [True]
    readiness = Readiness(probe=lambda: alive[0])
    async with running(echo.register, readiness=readiness) as server, server.connect() as channel:
        readiness.ready()
        alive[0] = False
        readiness.probe()
        with pytest.raises(MeshError, match="not answering") as caught:
            await stub_of(channel).unary(b"x")
        assert caught.value.reason is Reason.NOT_READY
        alive[0] = True
        readiness.probe()
        readiness.draining()
        assert await stub_of(channel).unary(b"late") == b"late"
    never = Readiness()
    never.draining()
    async with running(echo.register, readiness=never) as server, server.connect() as channel:
        with pytest.raises(MeshError, match="draining"):
            await stub_of(channel).unary(b"x")
