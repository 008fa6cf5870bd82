"""Export of spans to an OTLP/gRPC collector. Imported only where one is configured.

Knows nothing about what spans mean. A collector that is away costs spans, never requests: the queue is bounded.
"""

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer as ApiTracer

from serin_mesh.settings import ServiceSettings


def exporting_tracer(service: str, settings: ServiceSettings) -> tuple[ApiTracer, Callable[[], None]]:
    """A tracer whose spans are exported in batches, and what flushes and stops it."""
    resource = Resource.create(
        {
            "service.namespace": "serin",
            "service.name": service,
            "service.version": settings.version,
            "service.instance.id": settings.instance,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    secure = settings.otlp_endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=not secure, timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096))
    tracer: Tracer | ApiTracer = provider.get_tracer("serin_mesh")
    return tracer, provider.shutdown
