"""A span for each HTTP request, below the caller's; every call made for it carries the trace on.

Knows nothing about what a request does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from serin_mesh import telemetry

from serin_gateway.receipt import Receipt
from serin_gateway.rest.client import Headers

_CARRIERS = (telemetry.TRACE_KEY.encode(), telemetry.STATE_KEY.encode())


@contextmanager
def request_span(headers: Headers, receipt: Receipt) -> Iterator[Span]:
    """Run a request inside a span; what its receipt says in the end describes it."""
    carried = [(name.decode(), value.decode("latin-1")) for name, value in headers if name in _CARRIERS]
    parent = telemetry.extract(carried) if carried else None
    span = telemetry.start_span("request", kind=SpanKind.SERVER, parent=parent)
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield span
    finally:
        if span.is_recording():
            _describe(span, receipt)
        span.end()
        context.detach(token)


def _describe(span: Span, receipt: Receipt) -> None:
    span.update_name(receipt.operation)
    span.set_attributes(
        {
            "gen_ai.operation.name": receipt.operation,
            "gen_ai.request.model": receipt.model,
            "gen_ai.usage.input_tokens": receipt.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": receipt.usage.completion_tokens,
            "serin.request_id": receipt.request_id,
            "serin.lane": receipt.lane,
            "serin.worker": receipt.worker,
            **{f"serin.{verb}_s": seconds for verb, seconds in receipt.verbs.items()},
        }
    )
    if receipt.reason != "ok":
        span.set_attribute("error.type", receipt.reason)
        span.set_status(StatusCode.ERROR)
