"""What metrics, traces and log lines cost a call that sends one request to Agenta, in CPU time. Nothing is asserted."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from agenta_ai_server.domain.call import Call, Principal, UpstreamRequest
from agenta_ai_server.domain.listener import CallListener, CallListeners, CallOutcome
from agenta_ai_server.telemetry.call_log import AuditLog, CallLog
from agenta_ai_server.telemetry.logs import JsonFormatter
from agenta_ai_server.telemetry.metrics import Metrics
from agenta_ai_server.telemetry.trace_context import TraceContextForwarder
from agenta_ai_server.telemetry.tracing import Tracing

COUNT = 20_000
PRINCIPAL = Principal(user="u" * 32, organization="o" * 32, project="p" * 32, method="api_key")
METADATA = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("user-agent", "grpc"))
UNSAMPLED = ((METADATA[0][0], METADATA[0][1][:-1] + "0"), METADATA[1])


async def measure(name: str, listener: CallListener, metadata: tuple[tuple[str, str], ...] = METADATA) -> None:
    ending = CallOutcome(code="OK", seconds=1.25, response_bytes=2000)
    began = time.process_time()
    for number in range(COUNT):
        call = Call(
            id=f"{number:032x}", method="/agenta.ai.v1.ToolService/CallTool", metadata=metadata,
            peer="ipv4:10.0.0.1:40112",  principal=PRINCIPAL,
            tool="tools.agenta.api.refine_prompt",
        )  # fmt: skip
        listener.call_began(call)
        request = UpstreamRequest("https://cloud.agenta.ai/services/completion/run")
        listener.request_began(request, call)
        call.requests.append(request)
        request.outcome, request.ended = "OK", request.began + 1.2
        listener.request_ended(request, call)
        listener.call_ended(call, ending)
    print(f"{name:32} {(time.process_time() - began) / COUNT * 1e6:6.1f} µs a call")


async def main() -> None:
    await measure("nothing", CallListener())
    await measure("metrics", Metrics("0"))
    await measure("log line", CallLog())
    await measure("default settings", CallListeners([TraceContextForwarder(), CallLog(), AuditLog()]))
    # Nobody listens there: what is measured is all but the sending.
    logging.disable(logging.WARNING)
    tracing = Tracing("http://127.0.0.1:9/v1/traces", version="0", flush_seconds=0)
    await measure("traces, not sampled", tracing, UNSAMPLED)
    await measure("traces", tracing)


if __name__ == "__main__":
    with open(os.devnull, "w") as nowhere:
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level="INFO", handlers=[handler])
        asyncio.run(main())
