"""Trace context of this process: W3C ``traceparent`` in and out, spans, OTLP export when it is configured.

Without a collector no SDK is imported and a span is 24 random bytes: the trace still travels through every hop and
its id is in every log line. Knows nothing about gRPC calls; it reads and writes (key, value) pairs.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serin_mesh.settings import ServiceSettings

TRACE_KEY = "traceparent"
STATE_KEY = "tracestate"

_propagator = TraceContextTextMapPropagator()
_tracers: list[trace.Tracer] = []  # the exporting tracer of this process, if one is configured


def configure_telemetry(service: str, settings: ServiceSettings) -> Callable[[], None]:
    """Start exporting spans if a collector is configured; returns what flushes and ends it (it may block)."""
    if not settings.otlp_endpoint:
        return _nothing
    from serin_mesh.otlp import exporting_tracer  # only now: the exporter costs memory and start-up time

    tracer, shutdown = exporting_tracer(service, settings)
    _tracers[:] = [tracer]

    def stop() -> None:
        if tracer in _tracers:
            _tracers.remove(tracer)
        shutdown()

    return stop


@contextmanager
def span(name: str, *, kind: SpanKind = SpanKind.INTERNAL, **attributes: AttributeValue) -> Iterator[Span]:
    """Run a block as a span below the current one."""
    opened = start_span(name, kind=kind, attributes=attributes)
    token = otel_context.attach(trace.set_span_in_context(opened))
    try:
        yield opened
    except BaseException as error:
        opened.set_attribute("error.type", type(error).__name__)
        raise
    finally:
        otel_context.detach(token)
        opened.end()


def start_span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: SpanContext | None = None,
    attributes: dict[str, AttributeValue] | None = None,
) -> Span:
    """Open a span below ``parent`` (default: the current one); it is ended by its owner."""
    above = parent or trace.get_current_span().get_span_context()
    if _tracers:
        inside = trace.set_span_in_context(NonRecordingSpan(above)) if parent else None
        return _tracers[0].start_span(name, context=inside, kind=kind, attributes=attributes)
    trace_id = above.trace_id if above.is_valid else secrets.randbits(128) or 1
    flags = above.trace_flags if above.is_valid else TraceFlags(TraceFlags.DEFAULT)
    state = above.trace_state if above.is_valid else None
    return NonRecordingSpan(SpanContext(trace_id, secrets.randbits(64) or 1, False, flags, state))


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> SpanContext | None:
    """The caller's span, if the metadata names a valid one."""
    carrier = {key: value for key, value in metadata if key in (TRACE_KEY, STATE_KEY) and isinstance(value, str)}
    if TRACE_KEY not in carrier:
        return None
    found = trace.get_current_span(_propagator.extract(carrier, context=otel_context.Context())).get_span_context()
    return found if found.is_valid else None


def inject(around: Span | None = None) -> list[tuple[str, str]]:
    """Metadata that hands a span (default: the current one) to the service that is called."""
    context = (around or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return []
    pairs = [(TRACE_KEY, f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")]
    if context.trace_state:
        pairs.append((STATE_KEY, context.trace_state.to_header()))
    return pairs


def trace_id() -> str:
    """Trace that the current task works for, in hex; empty: none."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def _nothing() -> None:
    """Nothing was started, so nothing is to be stopped."""
