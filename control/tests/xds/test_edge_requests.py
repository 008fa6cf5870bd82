"""What Envoy does with requests to gateways: repeated before the first byte or not at all, split by planned shares."""

import asyncio
import collections
import contextlib
import json
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from control_envoy import enveloped, fetch, gateway
from control_running import Arrivals, controlled, echo, topology_where
from serin_control import plane
from serin_control.instance import Service
from serin_control.xds import edge as edge_module
from serin_control.xds import edge_listeners, routes
from serin_control.xds.edge import EdgeSettings

CONFIG = "models: {small: {path: x}}"
FILLED = 0.955
"""Of Envoy's memory: between 95 %, where it refuses requests, and 98 %, where it does not even take connections."""


def refusing(reason: bytes, asked: list[bytes], *, times: int = 1):
    """A gateway that answers 503 with a reason so often, then 200."""

    async def rest(path: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        if path.startswith(b"/v1/") and asked.count(path) <= times:
            head = b"HTTP/1.1 503 Service Unavailable\r\nserin-reason: %s\r\n" % reason
            writer.write(head + b"connection: close\r\ncontent-length: 2\r\n\r\nno")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nyes")

    return rest


def naming(name: bytes):
    """A gateway that answers with its name."""

    async def rest(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name))

    return rest


@pytest.fixture
def shared_out(monkeypatch):
    """Has versions of the gateway share calls like this."""
    real = plane.declared_plan

    def share(**shares: int) -> None:
        planned = {Service.GATEWAY: shares}
        monkeypatch.setattr(plane, "declared_plan", lambda config: replace(real(config), service_shares=planned))

    return share


@pytest.fixture
async def edge_of(tmp_path):
    """Puts an edge before gateways that answer as told; gives its address once it carries requests, and their doors."""
    async with AsyncExitStack() as stack:

        async def make(*rests, versions=("v1",)) -> tuple[str, list[asyncio.Server]]:
            doors: list[asyncio.Server] = []
            control, address = await stack.enter_async_context(controlled(CONFIG, edge=EdgeSettings()))
            for number, rest in enumerate(rests):
                version = versions[number % len(versions)]
                one = gateway(address, f"g{number}", version=version, rest=rest)
                doors.append(await stack.enter_async_context(one))
            await topology_where(control, lambda topology: len(topology.gateways) == len(rests))
            where = await stack.enter_async_context(enveloped(address, tmp_path))
            edge = await where("edge")
            await until_served(edge)
            return edge, doors

        yield make


async def until_served(edge: str) -> None:
    """Wait until requests reach a gateway: the listener is known a moment before it listens, and before all routes."""
    while True:
        try:
            await fetch(edge, "/live")
            return
        except (AssertionError, OSError):
            await asyncio.sleep(0.05)


async def test_a_refusal_before_the_first_byte_is_repeated(edge_of):
    """503 by a gateway that has done nothing yet: the caller sees the answer of the second try."""
    asked: list[bytes] = []
    edge, _ = await edge_of(refusing(b"NOT_READY", asked))
    assert await fetch(edge, "/v1/models") == "yes"
    assert asked.count(b"/v1/models") == 2


async def test_repeats_end(edge_of):
    """A gateway that goes on refusing is asked four times in all; its own answer is what the caller gets."""
    asked: list[bytes] = []
    edge, _ = await edge_of(refusing(b"NOT_READY", asked, times=99))
    assert await fetch(edge, "/v1/models", status=503) == "no"
    assert asked.count(b"/v1/models") == 4


async def test_a_refusal_after_work_was_done_is_not_repeated(edge_of):
    """A gateway that has lost a lane in the middle tried what could be tried: the request may be what kills workers."""
    asked: list[bytes] = []
    edge, _ = await edge_of(refusing(b"LANE_LOST", asked))
    assert await fetch(edge, "/v1/models", status=503) == "no"
    assert asked.count(b"/v1/models") == 1
    headers = "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 9\r\n"
    assert await fetch(edge, "/v1/chat", status=503, headers=headers) == "no"
    assert asked.count(b"/v1/chat") == 1, "callers have no say in it"


async def test_a_broken_stream_is_not_repeated(edge_of):
    """After the first byte nothing is sent twice: the caller sees the stream end where it broke."""
    asked: list[bytes] = []

    async def breaks(path: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"6\r\ndata: \r\n")
        if path.startswith(b"/v1/"):
            await writer.drain()
            writer.transport.abort()
        else:
            writer.write(b"0\r\n\r\n")

    edge, _ = await edge_of(breaks)
    host, port = edge.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: edge\r\n\r\n")
    try:
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    assert not answer.endswith(b"0\r\n\r\n"), "a chunked answer that was cut has no end"
    assert asked.count(b"/v1/stream") == 1


async def test_a_gateway_that_hangs_keeps_no_call(edge_of, monkeypatch):
    """Silence ends a call that is not repeated, before an answer and in it; whoever gives signs of life may go on."""
    monkeypatch.setattr(edge_module, "HANGING_AFTER", timedelta(seconds=1))
    asked: list[bytes] = []
    over = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def rest(path: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        if path == b"/v1/hangs":
            await over.wait()
        elif path == b"/v1/hangs/in/stream":
            writer.write(head + b"6\r\ndata: \r\n")
            await over.wait()
        elif path.startswith(b"/v1/waits"):
            in_stream = path == b"/v1/waits/in/stream"
            writer.write(head if in_stream else b"")
            for _ in range(8):
                writer.write(b"3\r\n:\n\n\r\n" if in_stream else b"HTTP/1.1 199 Working\r\n\r\n")
                await asyncio.sleep(0.3)
            writer.write(b"0\r\n\r\n" if in_stream else b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nyes")

    edge, _ = await edge_of(rest)
    waited, waited_in_stream, refused, broken = await asyncio.gather(
        fetch(edge, "/v1/waits"),
        fetch(edge, "/v1/waits/in/stream"),
        fetch(edge, "/v1/hangs", status=503),
        fetch(edge, "/v1/hangs/in/stream"),
        return_exceptions=True,
    )
    over.set()
    assert (waited, waited_in_stream) == ("yes", 8 * ":\n\n")
    assert isinstance(broken, ConnectionError | ValueError), "a chunked answer that was cut has no end"
    error = json.loads(refused)["error"]
    assert (error["type"], error["code"]) == ("server_error", "edge_503")
    assert "was not repeated" in error["message"]
    assert {asked.count(path) for path in asked if path != b"/live"} == {1}


async def test_no_gateway_is_said_as_openai_says_it(tmp_path):
    """Nothing behind the edge: 503 with a sentence and `retry-after`, not a timeout."""
    async with controlled(CONFIG) as (_, address), enveloped(address, tmp_path) as where:
        edge = await where("edge")
        while True:  # the listener is known a moment before it listens
            with contextlib.suppress(OSError):
                error = json.loads(await fetch(edge, "/v1/models", status=503))["error"]
                break
            await asyncio.sleep(0.05)
        assert error["message"] == "NOT_READY: nothing serves gateway-rest yet"
        assert error["type"] == "server_error"


async def test_versions_of_the_gateway_share_by_plan(edge_of, shared_out):
    """A canary gateway gets its planned share of requests, whatever its size."""
    shared_out(v1=80, v2=20)
    edge, _ = await edge_of(naming(b"v1"), naming(b"v2"), versions=("v1", "v2"))
    while True:  # until Envoy has heard of both gateways
        seen = collections.Counter([await fetch(edge, "/live") for _ in range(200)])
        if 17 <= seen["v2"] <= 63:  # 20 % of 200, 4 standard deviations
            break
    assert set(seen) == {"v1", "v2"}


async def test_a_gateway_that_is_gone_fails_no_call(edge_of, shared_out):
    """Before anybody else knows of it: others of its version answer, and where none is left, the other version."""
    shared_out(v1=50, v2=50)
    edge, doors = await edge_of(*map(naming, (b"v1a", b"v2", b"v1b")), versions=("v1", "v2"))

    async def answers(number: int) -> collections.Counter[str]:
        return collections.Counter(await asyncio.gather(*(fetch(edge, "/v1/models") for _ in range(number))))

    while set(await answers(40)) != {"v1a", "v1b", "v2"}:  # until Envoy has heard of all
        pass
    doors[0].close()
    assert set(await answers(200)) == {"v1b", "v2"}
    found = await answers(400)  # Envoy leaves it out by now
    assert 160 <= found["v2"] <= 240, "half of 400, 4 standard deviations: its version keeps its share"
    doors[1].close()  # and it is not known yet that one of those that stand in for it is gone too
    assert set(await answers(200)) == {"v1b"}


@pytest.mark.long
async def test_cancels_do_not_count_with_envoy(tmp_path):
    """Plain gRPC callers may cancel as much as they like: the only worker of a version stays in place."""
    arrivals = Arrivals()
    options = [("grpc.default_authority", "worker.small")]
    async with (
        controlled(CONFIG, edge=EdgeSettings(mesh_port=0)) as (control, address),
        echo(address, "t1", Service.TOKENIZER),
        echo(address, "w1", holding=arrivals),
        enveloped(address, tmp_path) as where,
    ):
        await topology_where(control, lambda topology: topology.complete)
        async with grpc.aio.insecure_channel(await where("mesh"), options=options) as channel:
            say, hold = (channel.unary_unary(f"/echo.Echo/{method}") for method in ("Say", "Hold"))
            assert await say(b"", timeout=60, wait_for_ready=True) == b"w1"
            held = [hold(b"", timeout=60) for _ in range(200)]
            await arrivals.until(200)
            for call in held:
                call.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            begun = time.monotonic()
            while time.monotonic() - begun < 4:  # two intervals
                assert await say(b"", timeout=60) == b"w1"
                await asyncio.sleep(0.5)


async def test_what_is_new_is_refused_before_memory_ends(tmp_path):
    """Streams fill Envoy's memory: further requests get 503 as OpenAI says it, running ones go on, and it heals."""
    max_heap_bytes = 16 << 20
    goes_on, over = asyncio.Event(), asyncio.Event()

    async def speaks(path: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if path.startswith(b"/v1/"):
            writer.write(b"7\r\ndata: 1\r\n")
            ends = goes_on if path == b"/v1/first" else over
            while not ends.is_set() and not writer.is_closing():
                writer.write(b"1\r\n:\r\n")  # as gateways do: Envoy gives up one that is silent for some seconds
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ends.wait(), 1)
            writer.write(b"7\r\ndata: 2\r\n")
        writer.write(b"0\r\n\r\n")

    async with (
        controlled(CONFIG, edge=EdgeSettings()) as (control, address),
        gateway(address, "g0", rest=speaks),
        enveloped(address, tmp_path, max_heap_bytes=max_heap_bytes) as where,
        contextlib.AsyncExitStack() as streams,
    ):
        streams.callback(over.set)
        filling: list[asyncio.StreamWriter] = []
        await topology_where(control, lambda topology: len(topology.gateways) == 1)
        edge, admin = await where("edge"), await where("admin")

        async def filled() -> float:
            """Share of the memory that is used now, as Envoy counts it: what it acts on is older than this."""
            memory = json.loads(await fetch(admin, "/memory"))
            free = int(memory["pageheap_unmapped"]) + int(memory["pageheap_free"])
            return (int(memory["heap_size"]) - free) / max_heap_bytes

        async def stream(path: str, among: list[asyncio.StreamWriter]) -> asyncio.StreamReader:
            """One more answer, whose head is there."""
            host, port = edge.rsplit(":", 1)
            reader, writer = await asyncio.open_connection(host, int(port))
            streams.callback(writer.close)
            among.append(writer)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: edge\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            return reader

        async def refusal() -> dict[str, str] | None:
            """What Envoy says to a short request, if it refuses it."""
            with contextlib.suppress(AssertionError):
                return json.loads(await fetch(edge, "/live", status=503))["error"]
            return None

        await until_served(edge)
        first = await stream("/v1/first", [])
        await first.readuntil(b"data: 1")
        error = None
        while error is None:
            try:
                error = await refusal()
                if error is None and await filled() < FILLED:
                    await stream("/v1/stream", filling)
            except (EOFError, OSError):  # memory grows in steps, and one led past where connections are taken
                if filling:
                    filling.pop().close()
                await asyncio.sleep(0.05)
        assert (error["type"], error["code"]) == ("server_error", "edge_503")
        goes_on.set()
        assert b"data: 2" in await first.readuntil(b"\r\n0\r\n\r\n")
        await streams.aclose()
        await until_served(edge)


async def test_a_tenant_cannot_take_the_gateway_from_others(edge_of):
    """Hundreds of refusals in a row, each the sender's own doing, leave the only gateway in place."""
    asked: list[bytes] = []
    edge, _ = await edge_of(refusing(b"UPSTREAM_UNAVAILABLE", asked, times=999))
    for _ in range(100):
        assert await fetch(edge, "/v1/models", status=503) == "no"
    assert await fetch(edge, "/live") == "yes"


@pytest.mark.long
async def test_streams_end_by_silence_never_by_length(edge_of, monkeypatch):
    """Past Envoy's default of 15 s a stream that speaks goes on; one that falls silent for the idle time is ended."""
    for module in (routes, edge_listeners):
        monkeypatch.setattr(module, "STREAM_IDLE_TIMEOUT", timedelta(seconds=2))
    spoken: list[float] = []

    async def speaks(path: bytes, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head)
        if not path.startswith(b"/v1/"):
            writer.write(b"0\r\n\r\n")
            return
        begun = time.monotonic()
        while time.monotonic() - begun < 17:
            writer.write(b"6\r\ndata: \r\n")
            await writer.drain()
            spoken.append(time.monotonic())
            await asyncio.sleep(0.5)
        await silent.wait()

    silent = asyncio.Event()
    edge, _ = await edge_of(speaks)
    host, port = edge.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: edge\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        heard = b""
        while piece := await reader.read(65_536):
            heard += piece
    ended = time.monotonic()
    silent.set()
    writer.close()
    assert heard.count(b"data: ") == len(spoken) > 30
    assert spoken[-1] - spoken[0] > 15
    assert ended > spoken[-1] + 1.9
