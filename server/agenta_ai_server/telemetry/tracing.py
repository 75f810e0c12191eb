"""Spans of calls and of their requests to the completion service, exported by OTLP over HTTP.

A span holds names, ids, numbers and reasons; never what a caller wrote or a model answered.
"""

from __future__ import annotations

import asyncio
import threading
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agenta_ai_server.domain.listener import CallListener
from agenta_ai_server.telemetry.trace_context import trace_context

if TYPE_CHECKING:
    from agenta_ai_server.domain.call import Call, UpstreamRequest
    from agenta_ai_server.domain.listener import CallOutcome
    from agenta_ai_server.domain.values import Attempt

SERVICE_NAME = "agenta-ai-server"
# The codes that are the server's fault, by OpenTelemetry's conventions for gRPC; the others are the caller's.
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_W3C = TraceContextTextMapPropagator()


class Tracing(CallListener):
    """One SERVER span for each call, and below it one CLIENT span for each of its requests.

    The ``OTEL_`` variables that aren't arguments here, such as the sampler's and the exporter's headers, are read by
    OpenTelemetry's SDK itself. Its global provider stays as it is.

    Args:
        endpoint: Whole URL that spans are sent to, ``http://collector:4318/v1/traces``.
        version: The server's.
        flush_seconds: How long :meth:`aclose` waits at most for spans to be sent.
    """

    def __init__(self, endpoint: str, *, version: str, flush_seconds: float) -> None:
        # At exit is too late: by then the flush could no longer be bounded.
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("agenta_ai_server", version)
        self._requests: dict[UpstreamRequest, trace.Span] = {}
        self._flush_seconds = flush_seconds

    def call_began(self, call: Call) -> None:
        """Begin its span, and make it that of the task and of those that it starts."""
        method = call.method.removeprefix("/")
        span = self._tracer.start_span(
            method,
            _W3C.extract(trace_context(call)),
            SpanKind.SERVER,
            {
                "rpc.system.name": "grpc",
                "rpc.method": method,
                "client.address": call.host,
                "agenta.call.id": call.id,
            },
        )
        call.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        # Never detached: the context is the task's, and ends with it.
        context.attach(trace.set_span_in_context(span))

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        """End its span."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes({name: value for name, value in _attributes(call, outcome).items() if value})
            if outcome.code in SERVER_ERRORS or (outcome.code == "OK" and outcome.reason):
                span.set_status(Status(StatusCode.ERROR, outcome.reason or outcome.code))
        span.end()

    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        """Begin its span, and add its context to the request."""
        span = self._tracer.start_span("POST", kind=SpanKind.CLIENT, attributes=_target(request.url))
        self._requests[request] = span
        if request.resends and span.is_recording():
            span.set_attribute("http.request.resend_count", request.resends)
        _W3C.inject(request.headers, trace.set_span_in_context(span))

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        """End its span, and link it to the trace that Agenta made of the request."""
        span = self._requests.pop(request)
        if span.is_recording():
            if request.status:
                span.set_attribute("http.response.status_code", request.status)
            if request.outcome != "OK":
                span.set_attribute("error.type", request.outcome)
                span.set_status(Status(StatusCode.ERROR, request.outcome))
            _link(span, request.attempt)
        span.end()

    async def aclose(self) -> None:
        """Send what hasn't been sent yet, as far as there is time."""
        # In a daemon thread, so that a collector that doesn't answer can't keep the process from ending.
        flushing = threading.Thread(target=self._provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, self._flush_seconds)


def _resource(version: str) -> Resource:
    detected = OTELResourceDetector().detect().attributes
    return Resource.create(
        {
            "service.name": detected.get("service.name") or SERVICE_NAME,
            "service.version": version,
            "service.instance.id": detected.get("service.instance.id") or str(uuid4()),
        }
    )


def _attributes(call: Call, outcome: CallOutcome) -> dict[str, str | bool]:
    principal = call.principal
    attempts = [request.attempt for request in call.requests if request.attempt]
    return {
        "rpc.response.status_code": outcome.code,
        "error.type": "" if outcome.is_success else outcome.reason or outcome.code,
        "agenta.tool": call.tool,
        "agenta.request.id": call.request_id,
        "agenta.organization.id": principal.organization if principal else "",
        "agenta.reason": outcome.reason,
        "agenta.replayed": outcome.replayed,
        "agenta.trace_id": attempts[-1].trace_id if attempts else "",
    }


@lru_cache(maxsize=8)
def _target(url: str) -> dict[str, str | int]:
    parts = urlsplit(url)
    return {
        "http.request.method": "POST",
        "url.full": url,
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _link(span: trace.Span, attempt: Attempt | None) -> None:
    """Lead from the span to the trace that Agenta made of the request, which is another one."""
    if attempt and attempt.trace_id:
        span.set_attribute("agenta.trace_id", attempt.trace_id)
        there = SpanContext(int(attempt.trace_id, 16), int(attempt.span_id or "0", 16), is_remote=True)
        span.add_link(there, {"agenta.trace_id": attempt.trace_id})
