"""A span for each call, below the caller's; what the handler does happens inside it."""

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from serin_mesh import telemetry
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc


def trace_calls(handle: Handle) -> Handle:
    """Run each call inside a span named after its method."""

    async def traced(rpc: Rpc) -> Any:
        if rpc.is_infrastructure:
            return await handle(rpc)
        service, _, method = rpc.method[1:].partition("/")
        span = telemetry.start_span(
            rpc.method[1:],
            kind=SpanKind.SERVER,
            parent=telemetry.extract(rpc.metadata.items()),
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "serin.request_id": rpc.served.request_id,
            },
        )
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            return await handle(rpc)
        finally:
            if span.is_recording():
                span.set_attribute("rpc.grpc.status_code", rpc.code.value[0])
                if rpc.served.lane:
                    span.set_attribute("serin.lane", rpc.served.lane)
                if rpc.reason is not None:
                    span.set_attribute("error.type", rpc.reason.value)
                    span.set_status(StatusCode.ERROR)
            span.end()
            otel_context.detach(token)

    return traced
