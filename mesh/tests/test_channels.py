"""Channels: deadlines, request ids, lanes and pins travel by themselves; one call is one translated error."""

import asyncio
import base64
import gc
import json
import os

import grpc
import pytest
from serin_mesh.call import detached, request_id
from serin_mesh.channels import connect, pick_cookie, use_control_plane
from serin_mesh.errors import MeshError, Reason
from serin_mesh.lane_memory import conversation, model_of
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running


def noting(echo, seen: list):
    """Make the unary method note (metadata, seconds left) of each call."""

    async def unary(request, context):
        seen.append((dict(context.invocation_metadata()), context.time_remaining()))
        return request

    echo.unary = unary
    return echo


async def test_a_call_without_a_timeout_gets_the_channels(echo, stub_of) -> None:
    """Given none, the default; given one, that one."""
    seen: list = []
    async with running(noting(echo, seen).register) as server, server.connect(deadline_s=3.0) as channel:
        await stub_of(channel).unary(b"x")
        await stub_of(channel).unary(b"x", timeout=100)
    assert 0 < seen[0][1] < 4  # gRPC rounds deadlines up a little
    assert 4 < seen[1][1] < 110


async def test_the_default_deadline_is_kept(echo, stub_of) -> None:
    """Unary and streaming calls that take longer end with DEADLINE_EXCEEDED on both sides."""
    async with running(echo.register) as server, server.connect(deadline_s=0.1) as channel:
        with pytest.raises(MeshError) as caught:
            await stub_of(channel).unary(b"hang")
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        await echo.cancelled.wait()
        with pytest.raises(MeshError) as caught:
            async for _ in stub_of(channel).stream(b"hang"):
                pass
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_watches_get_no_deadline(echo, stub_of) -> None:
    """What lives as long as its parties is not cut off by a default."""
    left: list = []

    async def watch(request, context):
        left.append(context.time_remaining())
        yield request

    echo.stream = watch
    async with running(echo.register) as server, server.connect(deadline_s=1) as channel:
        assert [m async for m in stub_of(channel).watch(b"x")] == [b"x"]
    assert left == [None]


async def test_deadline_and_request_id_travel_on(echo, stub_of) -> None:
    """A call inside a call never outlives it, and belongs to the same request."""
    seen: list = []
    front = type(echo)()
    async with running(noting(echo, seen).register) as behind, behind.connect(deadline_s=60) as inner:

        async def forward(request, context):
            await stub_of(inner).unary(request)
            await stub_of(inner).unary(request, timeout=50)
            return request_id().encode()

        front.unary = forward
        async with running(front.register) as first, first.connect() as channel:
            identifier = (await stub_of(channel).unary(b"x", timeout=5)).decode()
    assert [metadata["serin-request-id"] for metadata, _ in seen] == [identifier] * 2
    assert all(0 < left < 6 for _, left in seen)  # gRPC rounds up a little


async def test_metadata_of_the_caller_is_kept(echo, stub_of) -> None:
    """Ours never replaces what was given."""
    seen: list = []
    async with running(noting(echo, seen).register) as server, server.connect() as channel:
        await stub_of(channel).unary(b"x", metadata=(("serin-request-id", "mine"), ("x-own", "1")))
    assert (seen[0][0]["serin-request-id"], seen[0][0]["x-own"]) == ("mine", "1")


class Lanes:
    """What a test says the server's own lanes are."""

    def __init__(self, *lanes: str) -> None:
        self.current = dict.fromkeys(lanes, 1)

    def __call__(self):
        """The lanes now."""
        return self.current


@pytest.fixture
async def laned(echo, monkeypatch):
    """(server whose own lanes a test sets, metadata seen)."""
    seen: list = []
    lanes = Lanes()
    monkeypatch.setattr("serin_mesh.host.ServiceHost._own_lanes", lambda _: lanes.current)
    async with running(noting(echo, seen).register) as server:
        server.own = lanes
        yield server, seen


async def lane_sent(stub, **options) -> str | None:
    """The lane that an answer names."""
    call = stub.unary(b"x", **options)
    await call
    return dict(await call.initial_metadata()).get("serin-lane")


async def test_the_lane_of_an_answer_is_echoed(laned, stub_of) -> None:
    """First call without a lane, the second on the lane that answered; another conversation starts anew."""
    server, seen = laned
    server.own.current = {"heavy": 1, "light": 0}
    async with server.connect() as channel:
        stub = stub_of(channel)
        for _ in range(2):
            assert await lane_sent(stub) == "heavy"
        with conversation():
            await stub.unary(b"x")
        async for _ in stub.stream(b"x"):
            pass
    assert [metadata.get("serin-lane") for metadata, _ in seen] == [None, "heavy", None]


async def test_streams_teach_and_use_lanes_too(laned, stub_of) -> None:
    """A lane learnt from a stream's first message is on the next call."""
    server, seen = laned
    server.own.current = {"heavy": 1}
    async with server.connect() as channel:
        stub = stub_of(channel)
        assert [m async for m in stub.stream(b"x")] == [b"x"] * 3
        await stub.unary(b"x")
    assert seen[0][0]["serin-lane"] == "heavy"


async def test_conversations_in_parallel_do_not_mix(laned, stub_of) -> None:
    """Two tasks, two lanes: each keeps its own."""
    server, seen = laned
    server.own.current = {"a": 1, "b": 1}

    async def converse(stub, lane: str) -> None:
        with conversation():
            await stub.unary(b"x", metadata=(("serin-lane", lane),))
            for _ in range(5):
                await stub.unary(lane.encode())
                assert seen

    async with server.connect() as channel:
        await asyncio.gather(*(converse(stub_of(channel), lane) for lane in ("a", "b")))
    lanes = sorted(metadata["serin-lane"] for metadata, _ in seen)
    assert lanes == ["a"] * 6 + ["b"] * 6


async def test_a_served_call_is_a_conversation(echo, stub_of, monkeypatch) -> None:
    """What one request learnt is unknown to the next."""
    seen: list = []
    front = type(echo)()
    monkeypatch.setattr("serin_mesh.host.ServiceHost._own_lanes", lambda _: {"heavy": 1})
    async with running(noting(echo, seen).register) as behind, behind.connect() as inner:

        async def forward(request, context):
            await stub_of(inner).unary(request)
            return await stub_of(inner).unary(request)

        front.unary = forward
        async with running(front.register) as first, first.connect(echo_lane=False) as channel:
            for _ in range(2):
                await stub_of(channel).unary(b"x")
    assert [metadata.get("serin-lane") for metadata, _ in seen] == [None, "heavy", None, "heavy"]


async def test_a_lane_that_is_gone_is_forgotten(echo, stub_of, monkeypatch) -> None:
    """The call that meets LANE_GONE fails; the one after it follows the weights again."""
    gone, seen = [False], []
    monkeypatch.setattr("serin_mesh.host.ServiceHost._own_lanes", lambda _: {"heavy": 1})

    async def unary(request, context):
        lane = dict(context.invocation_metadata()).get("serin-lane")
        seen.append(lane)
        if gone[0] and lane:
            raise MeshError(Reason.LANE_GONE, "that lane is no more")
        return request

    echo.unary = unary
    async with running(echo.register) as server, server.connect() as channel:
        stub = stub_of(channel)
        await stub.unary(b"x")
        gone[0] = True
        with pytest.raises(MeshError, match="no more"):
            await stub.unary(b"x")
        await stub.unary(b"x")
    assert seen == [None, "heavy", None]


async def test_a_lane_that_is_not_ours_is_not_echoed(laned, stub_of) -> None:
    """A server says its own lane to callers that come by address with another's."""
    server, _ = laned
    server.own.current = {"heavy": 1}
    async with server.connect(echo_lane=False) as channel:
        assert await lane_sent(stub_of(channel), metadata=(("serin-lane", "foreign"),)) == "heavy"
        server.own.current = ()
        assert await lane_sent(stub_of(channel), metadata=(("serin-lane", "any"),)) == "any"
        assert await lane_sent(stub_of(channel)) is None


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("xds:///worker.small", "small"),
        ("xds:///tokenizer.qwen3-0.6b", "qwen3-0.6b"),
        ("xds:///cache", ""),
        ("a.b:1", ""),
    ],
)
def test_lanes_are_remembered_by_model(target: str, model: str) -> None:
    """Everything after the first dot of an xDS target is the model."""
    assert model_of(target) == model


def test_pick_cookie_form() -> None:
    """The form that the stateful session of xDS reads."""
    key, value = pick_cookie("worker.small@v1", "127.0.0.1:7001")
    assert key == "cookie"
    assert base64.b64decode(value.removeprefix("serin-pick=")) == b"127.0.0.1:7001;worker.small@v1"


def test_bootstrap_names_every_control_plane(monkeypatch, tmp_path) -> None:
    """Plain and with certificates; without a control plane it is an error."""
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", "")
    use_control_plane(ServiceSettings(control="127.0.0.1:1, 127.0.0.1:2", instance="gateway-1"))
    bootstrap = json.loads(os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"])
    assert [server["server_uri"] for server in bootstrap["xds_servers"]] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert bootstrap["xds_servers"][0]["channel_creds"] == [{"type": "insecure"}]
    assert bootstrap["node"]["id"] == "gateway-1"
    use_control_plane(ServiceSettings(control="c:1", tls_dir=tmp_path))
    credentials = json.loads(os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"])["xds_servers"][0]["channel_creds"][0]
    assert credentials["type"] == "tls"
    assert credentials["config"]["private_key_file"] == str(tmp_path / "key.pem")
    with pytest.raises(ValueError, match="--control"):
        use_control_plane(ServiceSettings())


async def test_call_facts_are_at_hand(echo, stub_of) -> None:
    """Status, metadata and time of a call can be asked for like on any grpc.aio call."""
    done = asyncio.Event()
    async with running(echo.register) as server, connect(server.address, ServiceSettings()) as channel:
        await channel.channel_ready()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        call = stub_of(channel).stream(b"x", timeout=9)
        call.add_done_callback(lambda _: done.set())
        await call.wait_for_connection()
        assert 0 < call.time_remaining() <= 9
        assert [m async for m in call] == [b"x"] * 3
        await done.wait()
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert await call.trailing_metadata() is not None


async def test_work_that_outlives_its_call_is_detached(echo, stub_of) -> None:
    """Inside ``detached`` a call has the channel's own deadline, not what is left of the served call."""
    seen: list = []
    front = type(echo)()
    async with running(noting(echo, seen).register) as behind, behind.connect(deadline_s=60) as inner:

        async def forward(request, context):
            with detached():
                return await stub_of(inner).unary(request)

        front.unary = forward
        async with running(front.register) as first, first.connect() as channel:
            await stub_of(channel).unary(b"x", timeout=5)
    assert seen[0][1] > 30


async def test_a_call_ends_with_its_last_holder(echo, stub_of) -> None:
    """A stream that is dropped half read is cancelled at once, without waiting for the garbage collector."""
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).stream(b"hang")
        async for _ in call:
            break
        call.add_done_callback(lambda _: None)
        await echo.started.wait()
        gc.disable()
        try:
            del call
            await echo.cancelled.wait()
        finally:
            gc.enable()
