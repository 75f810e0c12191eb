"""What is told of a call with progress: the same as of one without."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import grpc.aio
from addresses import free_address
from calls import refine, request, streamed
from conftest import connected, settings_for
from telemetry.conftest import attributes, scrape

if TYPE_CHECKING:
    from telemetry.conftest import Collector, Lines

    from agenta_ai_server.standin.app import StandIn

SERVICE = "agenta.ai.v1.ToolService"
# Differs from call to call.
OWN = ("call", "time", "seconds", "upstream_seconds", "agenta_trace_id", "response_bytes", "method", "trace_id")


async def test_lines_metrics_and_spans(standin: StandIn, lines: Lines, collector: Collector) -> None:
    metrics = free_address()
    more = {"AGENTA_AI_GRPC_METRICS_LISTEN": metrics, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    async with connected(settings_for(standin, **more)) as stub:
        for asked in (refine(), refine(guidelines="standin: status=500"), request({})):
            for call in (stub.CallTool(asked), streamed(stub, asked)):
                with suppress(grpc.aio.AioRpcError):
                    await call
        samples = await scrape(metrics)
    told = [{name: value for name, value in line.items() if name not in OWN} for line in lines.of("calls")]
    assert told[0::2] == told[1::2]
    assert [line["method"] for line in lines.of("calls")] == ["CallTool", "CallToolStream"] * 3
    counted = {labels: value for labels, value in samples["agenta_ai_calls_total"].items() if "CallTool" in labels}
    of_streams = {
        tuple("CallTool" if label == "CallToolStream" else label for label in labels): value
        for labels, value in samples["agenta_ai_calls_total"].items()
        if "CallToolStream" in labels
    }
    assert of_streams == counted
    alone, with_progress = (collector.named(f"{SERVICE}/{method}") for method in ("CallTool", "CallToolStream"))
    assert [span.status for span in with_progress] == [span.status for span in alone]
    assert [attributes(span).keys() for span in with_progress] == [attributes(span).keys() for span in alone]
