"""Draws one trace from the caller to the model, from a real run: trace.svg.

The caller's span is timed here, the service's spans come by OTLP, and the use of the model is read from Agenta's API.
"""

from __future__ import annotations

import html
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import httpx
from google.protobuf.struct_pb2 import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agenta_ai.v1 import tool_service_pb2, tool_service_pb2_grpc
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.testing import run_service

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CALLER = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
TEMPLATE = '{"messages": [{"role": "user", "content": "Please translate {{text}} in order to help."}]}'
# The first request fails, and the answer to the second has to be repaired.
FAULTS = (Fault(status=503, delay=0.2), Fault(answer="fewer", delay=0.6), Fault(delay=0.5))
SETTINGS = {"AGENTA_AI_GRPC_RETRIES": "1", "AGENTA_AI_GRPC_REPAIRS": "1"}
WIDTH, LEFT, ROW = 1000, 300, 46
COLORS = {"caller": "#7c6fd6", "service": "#2f8f7f", "Agenta": "#c7822d"}


class Span(NamedTuple):
    """A line of the picture. Times are in seconds since the epoch."""

    of: str
    name: str
    begin: float
    end: float
    note: str


@contextmanager
def collector(received: list[Any]) -> Iterator[str]:
    """Append the spans that come by OTLP. Yields the address."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                received.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def trace() -> Iterator[Span]:
    """Call a tool, and yield the spans of the call in the order in which they began."""
    received: list[Any] = []
    arguments = Struct()
    arguments.update({"prompt_template_json": TEMPLATE, "guidelines": "Be brief."})
    request = tool_service_pb2.CallToolRequest(name="tools.agenta.api.refine_prompt", arguments=arguments)
    with collector(received) as address, run_service(SETTINGS | {"OTEL_EXPORTER_OTLP_ENDPOINT": address}) as service:
        service.standin.respond = in_turn(*FAULTS)
        with grpc.insecure_channel(service.address) as channel:
            begin = time.time()
            response = tool_service_pb2_grpc.ToolServiceStub(channel).CallTool(request, metadata=CALLER)
            yield Span("caller", "refine a prompt", begin, end := time.time(), milliseconds(begin, end))
        used = iter(list(usage(service.standin.url, response.meta.trace_id)))
    for span in sorted(received, key=lambda span: int(span.start_time_unix_nano)):
        known = {each.key: each.value for each in span.attributes}
        begin, end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
        status = known["http.response.status_code"].int_value if span.name == "POST" else 0
        note = milliseconds(begin, end) + (f", HTTP {status}" if status else "")
        yield Span("service", span.name.rpartition(".")[2], begin, end, note)
        if status == 200:
            yield Span("Agenta", "completion_v0", begin, end, next(used))


def milliseconds(begin: float, end: float) -> str:
    return f"{(end - begin) * 1000:,.0f} ms"


def usage(agenta: str, trace_id: str) -> Iterator[str]:
    """Yield what Agenta's trace says of each run of the model."""
    key = {"authorization": "ApiKey standin-key"}
    answer = httpx.get(f"{agenta}/api/traces/{trace_id}", headers=key).json()
    for span in answer["trace"]["spans"]["completion_v0"]:
        tokens = span["attributes"]["ag"]["metrics"]["tokens"]["cumulative"]
        yield f"{tokens['prompt']:.0f} + {tokens['completion']:.0f} tokens"


def drawn(spans: list[Span]) -> str:
    """Return the picture: a bar for each span, from left to right in time."""
    begin, end = spans[0].begin, max(span.end for span in spans)
    scale = (WIDTH - LEFT - 20) / (end - begin)
    rows = []
    for number, span in enumerate(spans):
        y, x, width = 40 + number * ROW, LEFT + (span.begin - begin) * scale, max((span.end - span.begin) * scale, 2)
        at, color = (x + 8, "#fff") if width > 9 * len(span.note) else (x + width + 8, "#333")
        rows.append(
            f'<text x="20" y="{y + 20}" fill="#777">{span.of}</text>'
            f'<text x="95" y="{y + 20}" fill="#222">{html.escape(span.name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="30" rx="4" fill="{COLORS[span.of]}"/>'
            f'<text x="{at:.1f}" y="{y + 20}" fill="{color}">{html.escape(span.note)}</text>'
        )
    height = 50 + len(spans) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="14">'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f6f6f8"/>'
        f'<text x="20" y="24" fill="#777">trace {CALLER[0][1].split("-")[1]}</text>{"".join(rows)}</svg>\n'
    )


if __name__ == "__main__":
    (HERE / "trace.svg").write_text(drawn(list(trace())))
