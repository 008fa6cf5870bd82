"""A host: health follows readiness, a taken port is said, and a drain loses nothing."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.errors import MeshError, Reason
from serin_mesh.host import HostError
from serin_mesh.readiness import Readiness
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_follows_readiness(echo) -> None:
    """Checked and watched, for the server, the service and the contract it serves."""
    readiness = Readiness()
    async with running(echo.register, readiness=readiness) as server, server.connect() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="worker"))
        assert (await watch.read()).status == NOT_SERVING
        readiness.ready()
        assert (await watch.read()).status == SERVING
        for name in ("", "worker", "serin.test.v1.EchoService"):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
        readiness.draining()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        with pytest.raises(MeshError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.reason is Reason.NOT_FOUND
        assert caught.value.message.startswith("served here: "), "ours, not a foreign status"
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.parametrize("flag", ["port", "metrics_port"])
async def test_a_taken_port_is_said(echo, flag: str) -> None:
    """The flag, the port and what to do; nothing keeps running."""
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    name = "--" + flag.replace("_", "-")
    with pytest.raises(HostError, match=rf"{name}: {port}: cannot listen there: .*accepted: a free port"):
        async with running(echo.register, settings=ServiceSettings(**{flag: port}), metrics_http=True):
            pytest.fail("it started")
    taken.close()
    await taken.wait_closed()


async def test_two_servers_never_share_a_port(echo) -> None:
    """The kernel would let them; a client would meet either by chance."""
    async with running(echo.register) as server:
        with pytest.raises(HostError):
            async with running(echo.register, settings=ServiceSettings(port=server.port)):
                pytest.fail("it started")


async def test_a_drain_lets_running_calls_finish(echo, stub_of) -> None:
    """A stream that runs when the drain begins ends normally; a new call is refused."""
    go = asyncio.Event()

    async def stream(request, context):
        yield b"before"
        await go.wait()
        yield b"after"

    echo.stream = stream
    manager = running(echo.register)
    server = await manager.__aenter__()
    async with server.connect() as channel:
        call = stub_of(channel).stream(b"x")
        assert await call.read() == b"before"
        draining = asyncio.create_task(manager.__aexit__(None, None, None))
        await asyncio.sleep(0)
        go.set()
        assert await call.read() == b"after"
        assert await call.read() is grpc.aio.EOF
        await draining
        with pytest.raises(MeshError) as caught:
            await stub_of(channel).unary(b"x")
        assert caught.value.status.retryable


async def test_a_drain_cancels_what_outlasts_its_grace(echo, stub_of) -> None:
    """After the grace the rest is cancelled, and the client learns it."""
    manager = running(echo.register, settings=ServiceSettings(drain_grace_s=0.05, drain_notice_s=0))
    server = await manager.__aenter__()
    async with server.connect() as channel:
        call = stub_of(channel).unary(b"hang")
        waiting = asyncio.ensure_future(call)
        await echo.started.wait()
        await manager.__aexit__(None, None, None)
        assert echo.cancelled.is_set()
        with pytest.raises(MeshError):
            await waiting


async def test_a_drain_ends_watches_at_once(echo, stub_of) -> None:
    """Watches would outlast any grace; they are told to reconnect elsewhere."""

    async def endless(request, context):
        yield request
        await asyncio.Event().wait()

    echo.stream = endless
    manager = running(echo.register, settings=ServiceSettings(drain_grace_s=3600, drain_notice_s=0))
    server = await manager.__aenter__()
    async with server.connect() as channel:
        watch = stub_of(channel).watch(b"x")
        assert await watch.read() == b"x"
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == SERVING
        await manager.__aexit__(None, None, None)
        with pytest.raises(MeshError) as caught:
            await watch.read()
        assert caught.value.reason is Reason.NOT_READY
        assert (await health.read()).status == NOT_SERVING


async def test_calls_that_arrive_before_others_heard_of_the_drain_are_served(echo, stub_of) -> None:
    """Between announcing DRAINING and refusing, nobody who did not know yet is turned away."""
    twin = ControlTwin()
    async with running(twin.register, "control") as control:
        settings = ServiceSettings(control=control.address, instance="w1", drain_notice_s=0.2, drain_grace_s=5)
        manager = running(echo.register, settings=settings, announce=Announcement())
        server = await manager.__aenter__()
        async with server.connect() as channel:
            draining = asyncio.create_task(manager.__aexit__(None, None, None))
            await twin.state_of("w1", 3)
            assert await stub_of(channel).unary(b"late") == b"late"
            await draining
            await twin.withdrawn("w1")


async def test_the_liveness_probe_runs(echo, monkeypatch) -> None:
    """The host asks the probe by itself; a stall turns health off."""
    monkeypatch.setattr("serin_mesh.host.PROBE_EVERY_S", 0.001)
    alive = [True]
    readiness = Readiness(probe=lambda: alive[0])
    readiness.ready()
    async with running(echo.register, readiness=readiness) as server, server.connect() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        alive[0] = False
        assert (await watch.read()).status == NOT_SERVING
        alive[0] = True
        assert (await watch.read()).status == SERVING
        watch.cancel()


@pytest.mark.parametrize("development", [True, False])
async def test_reflection_is_for_development(echo, development: bool) -> None:
    """On: the services are listed. Off: the method does not exist."""
    settings = ServiceSettings(development=development, drain_notice_s=0)
    async with running(echo.register, settings=settings) as server, server.connect() as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        if development:
            await call.write(request)
            listed = {one.name for one in (await call.read()).list_services_response.service}
            assert "serin.test.v1.EchoService" in listed
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        else:
            with pytest.raises(MeshError) as caught:
                await call.read()
            assert caught.value.reason is Reason.NOT_IMPLEMENTED
            with pytest.raises(MeshError) as caught:
                await call.write(request)
            assert caught.value.reason is Reason.NOT_IMPLEMENTED


async def test_keepalives_of_silent_streams_are_not_an_attack(echo, stub_of) -> None:
    """A client that pings often during a silent stream keeps its connection."""

    async def silent(request, context):
        yield request
        await asyncio.Event().wait()

    echo.stream = silent
    options = [("grpc.keepalive_time_ms", 20), ("grpc.http2.max_pings_without_data", 0)]
    async with (
        running(echo.register) as server,
        grpc.aio.insecure_channel(server.address, options=options) as channel,
    ):
        watch = stub_of(channel).watch(b"x")
        assert await watch.read() == b"x"
        with pytest.raises(TimeoutError):  # gRPC pings once a second; by default the third ends the connection
            async with asyncio.timeout(3.5):
                await watch.read()
