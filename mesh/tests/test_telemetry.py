"""Traces: one trace through every hop, exported when a collector is configured and free when none is."""

import asyncio
import subprocess
import sys

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from serin_mesh import telemetry
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def test_w3c_form() -> None:
    """What comes in goes out: same trace, same flags and state, another span."""
    parent = telemetry.extract([("traceparent", PARENT), ("tracestate", "vendor=1")])
    span = telemetry.start_span("x", parent=parent)
    pairs = dict(telemetry.inject(span))
    version, trace_id, span_id, flags = pairs["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
    assert span_id != PARENT.split("-")[2]
    assert pairs["tracestate"] == "vendor=1"


@pytest.mark.parametrize("bad", ["", "x", "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT[:-3], "ff" + PARENT[2:]])
def test_a_malformed_parent_is_no_parent(bad: str) -> None:
    """A caller cannot break a trace, only lose it."""
    assert telemetry.extract([("traceparent", bad)]) is None


def test_spans_nest() -> None:
    """Inside a span its trace is current; afterwards none is."""
    with telemetry.span("outer"):
        outer = telemetry.trace_id()
        with telemetry.span("inner"):
            assert telemetry.trace_id() == outer
    assert len(outer) == 32
    assert telemetry.trace_id() == ""
    assert telemetry.inject() == []


async def test_a_trace_goes_through_every_hop(echo, stub_of) -> None:
    """The second service sees the first one's trace and request id, with another span as parent."""
    seen = []

    async def note(request, context):
        seen.append(dict(context.invocation_metadata()))
        return telemetry.trace_id().encode()

    back, front = type(echo)(), type(echo)()
    back.unary = note
    async with running(back.register) as second, second.connect() as inner:

        async def forward(request, context):
            seen.append(dict(context.invocation_metadata()))
            return await stub_of(inner).unary(request)

        front.unary = forward
        async with running(front.register) as first, grpc.aio.insecure_channel(first.address) as channel:
            headers = (("traceparent", PARENT), ("serin-request-id", "req-7"))
            answer = await stub_of(channel).unary(b"x", metadata=headers, timeout=10)
    assert answer.decode() == TRACE_ID
    assert seen[1]["traceparent"].split("-")[1] == TRACE_ID
    assert seen[1]["traceparent"] != PARENT
    assert seen[1]["serin-request-id"] == "req-7"


async def test_a_call_without_a_trace_begins_one(echo, stub_of) -> None:
    """Even with no collector anywhere, logs of all hops can be joined."""

    async def note(request, context):
        return telemetry.trace_id().encode()

    echo.unary = note
    async with running(echo.register) as server, server.connect() as channel:
        assert len(await stub_of(channel).unary(b"x")) == 32


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.resources: list = []

    async def Export(self, request, context):  # noqa: N802
        """Keep what is exported."""
        self.resources.extend(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> dict:
        """All spans by name."""
        return {span.name: span for one in self.resources for scope in one.scope_spans for span in scope.spans}


async def test_spans_are_exported_over_otlp(echo, stub_of) -> None:
    """A collector gets the server's span below the caller's, and the handler's own below that."""
    collector = Collector()
    otlp = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, otlp)
    port = otlp.add_insecure_port("127.0.0.1:0")
    await otlp.start()
    settings = ServiceSettings(instance="w1", otlp_endpoint=f"http://127.0.0.1:{port}")
    stop = telemetry.configure_telemetry("worker", settings)

    async def work(request, context):
        with telemetry.span("engine.step", num_tokens=3):
            return b""

    echo.unary = work
    async with running(echo.register) as server, server.connect() as channel:
        await stub_of(channel).unary(b"x", metadata=(("traceparent", PARENT), ("serin-request-id", "req-9")))
    await asyncio.to_thread(stop)
    await otlp.stop(None)

    spans = collector.spans()
    served, step = spans["serin.test.v1.EchoService/Unary"], spans["engine.step"]
    assert served.trace_id.hex() == step.trace_id.hex() == TRACE_ID
    assert served.parent_span_id.hex() == PARENT.split("-")[2]
    assert step.parent_span_id == served.span_id
    attributes = {one.key: one.value for one in served.attributes}
    assert attributes["serin.request_id"].string_value == "req-9"
    assert attributes["rpc.grpc.status_code"].int_value == 0
    resource = {one.key: one.value.string_value for one in collector.resources[0].resource.attributes}
    assert resource["service.name"] == "worker"
    assert resource["service.instance.id"] == "w1"
    assert not isinstance(telemetry.start_span("after"), trace.Span) or not telemetry.start_span("after").is_recording()


def test_without_a_collector_no_exporter_is_imported() -> None:
    """No cost when not configured: neither SDK nor exporter nor cryptography is loaded by a server."""
    code = (
        "import sys, serin_mesh.server, serin_mesh.testing;"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'cryptography');"
        "bad = [name for name in sys.modules if name.startswith(heavy)];"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
