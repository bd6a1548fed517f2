"""Traces with W3C context over every transport, and the Prometheus registry."""

from collections.abc import Mapping

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

tracer = trace.get_tracer("dozen")


def configure_tracing(service: str, otlp_endpoint: str | None) -> TracerProvider:
    """Install the tracer provider; spans are exported only where there is a collector to take them."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.namespace": "dozen"})
    )
    if otlp_endpoint:
        # Imported here because the exporter costs 10 MB that a process without a collector can save.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{otlp_endpoint}/v1/traces")))
    trace.set_tracer_provider(provider)
    return provider


def current_trace_headers() -> dict[str, str]:
    """Give the W3C `traceparent` and `tracestate` headers of the current span."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def trace_context(headers: Mapping[str, str] | None) -> Context:
    """Read the trace context that a message or request brought along."""
    return propagate.extract(headers or {})


def render_metrics() -> tuple[bytes, str]:
    """Give the process's metrics in Prometheus' text form with its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
