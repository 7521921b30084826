"""Traces: one from the request to the receipt, however many processes and hours lie between.

A trace's context travels as a W3C `traceparent` that is stored with the message, so that whoever
goes on with the message continues its trace. Nothing is traced until `configure_tracing` was
called; then spans carry the keys of `telemetry.redaction` and no exception texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from telemetry.logs import error_code
from telemetry.redaction import redacted

__all__ = [
    "SpanKind",
    "configure_tracing",
    "current_traceparent",
    "recorded_spans",
    "shut_down_tracing",
    "span",
    "trace_to",
]

_HEADER = "traceparent"
_LONGEST_TRACEPARENT = 55
_propagator = TraceContextTextMapPropagator()
_provider: TracerProvider | None = None


def configure_tracing(service: str, endpoint: str | None) -> None:
    """Sends this process's spans to a collector by OTLP over HTTP; without an endpoint, does nothing.

    Args:
        service: the process, such as "api".
        endpoint: the collector's address, such as "http://127.0.0.1:4318".
    """
    if endpoint is None:
        return
    address = endpoint.rstrip("/") + "/v1/traces"
    _install(service, BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))


def trace_to(service: str, exporter: SpanExporter) -> None:
    """Gives each span to the exporter as soon as it ends."""
    _install(service, SimpleSpanProcessor(exporter))


def _install(service: str, processor: BatchSpanProcessor | SimpleSpanProcessor) -> None:
    global _provider  # noqa: PLW0603 - a process has one, as it has one log
    shut_down_tracing()
    _provider = TracerProvider(
        resource=Resource({SERVICE_NAME: f"smsgateway-{service}"}), shutdown_on_exit=False
    )
    _provider.add_span_processor(processor)


def shut_down_tracing() -> None:
    """Sends what is still waiting, and traces nothing from then on."""
    global _provider  # noqa: PLW0603 - see _install
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def recorded_spans(service: str = "test") -> Iterator[InMemorySpanExporter]:
    """Traces into memory for as long as it is open, so that tests can read the spans."""
    exporter = InMemorySpanExporter()
    trace_to(service, exporter)
    try:
        yield exporter
    finally:
        shut_down_tracing()


@contextmanager
def span(
    name: str,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    **attributes: Any,
) -> Iterator[Span]:
    """A span around what happens within; a no-op while tracing is off.

    An exception that leaves it marks the span as failed, with its type and code only.

    Args:
        name: what is done, a constant such as "submit part".
        parent: a stored `traceparent` to continue; otherwise the span that is open now.
        kind: SERVER for a request or receipt that came, CLIENT for a call to another system.
        attributes: keys of `telemetry.redaction`; others are left out.
    """
    if _provider is None:
        yield trace.INVALID_SPAN
        return
    tracer = _provider.get_tracer("smsgateway")
    with tracer.start_as_current_span(
        name,
        context=_context_of(parent),
        kind=kind,
        attributes=_attributes(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as exception:
            opened.set_attribute("error.type", type(exception).__qualname__)
            found = error_code(exception)
            if found:
                opened.set_attribute("smsgateway.code", found)
            opened.set_status(Status(StatusCode.ERROR))
            raise


def annotate(opened: Span, **attributes: Any) -> None:
    """Adds attributes to a span by the same rules as `span`."""
    opened.set_attributes(_attributes(attributes))


def current_traceparent() -> str | None:
    """The W3C `traceparent` of the open span, to be stored with a message; None while off."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(_HEADER)


def _context_of(traceparent: str | None) -> otel_context.Context | None:
    """The context of a `traceparent`; one that is malformed is as none (W3C Trace Context, 4.3)."""
    if traceparent is None or len(traceparent) > _LONGEST_TRACEPARENT:
        return None
    return _propagator.extract({_HEADER: traceparent})


def _attributes(values: dict[str, Any]) -> dict[str, str | int | float | bool]:
    return {
        f"smsgateway.{key}": value for key, value in redacted(values).items() if value is not None
    }
