"""One trace from the caller over this service to Agenta, as a collector sees it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from calls import REFINE, refine, request
from conftest import connected, settings_for
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from telemetry.conftest import attributes
from telemetry.test_metrics import cancelled, fails, late

from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.tools.refine_prompt.refiner import Refiner

if TYPE_CHECKING:
    from pathlib import Path

    from telemetry.conftest import Collector, Lines

    from agenta_ai_server.standin.app import StandIn

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=value")]
CALL = "agenta.ai.v1.ToolService/CallTool"


def traced(standin: StandIn, collector: Collector, **more: str) -> Any:
    return connected(settings_for(standin, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **more))


async def test_one_trace_with_the_right_parents(
    standin: StandIn, collector: Collector, lines: Lines, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, user="u", organization="the-org", project="p", permissions=["edit_workflows"], expires=None)
    standin.respond = in_turn(Fault(status=503), None)
    more = {
        "AGENTA_AI_GRPC_AUTH": "api_keys",
        "AGENTA_AI_GRPC_API_KEYS_FILE": str(path),
        "AGENTA_AI_GRPC_RETRIES": "1",
    }
    asked = refine()
    asked.request_id = str(uuid4())
    async with traced(standin, collector, **more) as stub:
        response = await stub.CallTool(asked, metadata=[*CALLER, ("authorization", f"ApiKey {key}")])

    (server,) = collector.named(CALL)
    first, second = collector.named("POST")
    assert len(collector.spans) == 3
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    assert [span.parent_span_id for span in (first, second)] == [server.span_id] * 2
    assert {span.kind for span in (first, second)} == {Span.SPAN_KIND_CLIENT}
    assert [sent.headers["traceparent"] for sent in standin.requests] == [
        f"00-{TRACE}-{span.span_id.hex()}-01" for span in (first, second)
    ]
    assert {sent.headers["tracestate"] for sent in standin.requests} == {"vendor=value"}
    # Agenta makes a trace of its own, which the spans lead to.
    assert [link.trace_id.hex() for link in second.links] == [response.meta.trace_id]
    assert all(link.span_id != bytes(8) for link in second.links)
    assert attributes(second)["agenta.trace_id"] == response.meta.trace_id

    told = attributes(server)
    (line,) = lines.of("calls")
    assert told == {
        "rpc.system.name": "grpc",
        "rpc.method": CALL,
        "rpc.response.status_code": "OK",
        "client.address": "127.0.0.1",
        "agenta.call.id": line["call"],
        "agenta.request.id": asked.request_id,
        "agenta.tool": REFINE,
        "agenta.organization.id": "the-org",
        "agenta.trace_id": response.meta.trace_id,
    }
    assert line["trace_id"] == TRACE
    assert attributes(first)["http.response.status_code"] == 503
    assert attributes(second)["http.response.status_code"] == 200
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(second)["url.full"] == f"{standin.url}/services/completion/v0/invoke"
    assert [span.status.code for span in (server, first, second)] == [
        Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET,
    ]  # fmt: skip
    assert collector.resource["service.name"] == "agenta-ai-server"


@pytest.mark.usefixtures("late_arrivals")
async def test_how_calls_end(standin: StandIn, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced(standin, collector, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0.1") as stub:
        await fails(stub.CallTool(request({})))
        standin.respond = in_turn(Fault(status=500))
        await stub.CallTool(refine())
        await late(stub, standin)
        await cancelled(stub, standin, refine(guidelines="standin: delay=50"))
        with monkeypatch.context() as patched:
            patched.setattr(Refiner, "refine", None)
            await fails(stub.CallTool(refine()))
    unset, error = Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR
    ends = [
        (attributes(span)["rpc.response.status_code"], attributes(span)["error.type"], span.status.code)
        for span in collector.named(CALL)
    ]
    assert ends == [
        ("INVALID_ARGUMENT", "ARGUMENTS_INVALID", unset),
        ("OK", "UPSTREAM_FAILED", error),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", error),
        ("CANCELLED", "CANCELLED", unset),
        ("INTERNAL", "INTERNAL", error),
    ]
    sent = [(attributes(span)["error.type"], span.status.code) for span in collector.named("POST")]
    assert sent == [("UPSTREAM_FAILED", error), ("CANCELLED", error), ("CANCELLED", error)]


async def test_without_a_trace_of_the_caller_one_begins(
    standin: StandIn, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK reads it itself.
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    async with traced(standin, collector) as stub:
        await stub.CallTool(refine())
        await stub.CallTool(refine(), metadata=[("traceparent", "nonsense")])
    servers = collector.named(CALL)
    assert [span.parent_span_id for span in servers] == [b"", b""]
    assert len({span.trace_id for span in collector.spans}) == 2
    assert collector.resource["service.name"] == "mine"


async def test_what_the_caller_does_not_sample_is_not_sent(standin: StandIn, collector: Collector) -> None:
    async with traced(standin, collector) as stub:
        await stub.CallTool(refine(), metadata=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
    assert collector.spans == []
    (sent,) = standin.requests
    assert sent.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert sent.headers["traceparent"].endswith("-00")


async def test_many_at_once_do_not_mix(standin: StandIn, collector: Collector) -> None:
    parents = [f"{number:016x}" for number in range(1, 21)]
    async with traced(standin, collector) as stub:
        await asyncio.gather(
            *(stub.CallTool(refine(), metadata=[("traceparent", f"00-{p * 2}-{p}-01")]) for p in parents)
        )
    servers = {span.span_id: span for span in collector.named(CALL)}
    assert sorted(span.parent_span_id.hex() for span in servers.values()) == parents
    assert all(span.trace_id == servers[span.parent_span_id].trace_id for span in collector.named("POST"))
    assert len(collector.named("POST")) == 20


async def test_a_collector_that_hangs_does_not_hold_up_the_end(standin: StandIn) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = "http://{}:{}".format(*hanging.getsockname())
        async with connected(settings_for(standin, OTEL_EXPORTER_OTLP_ENDPOINT=url)) as stub:
            await stub.CallTool(refine())
            began = loop.time()
        assert loop.time() - began < 5


@pytest.mark.parametrize(
    ("metadata", "headers"),
    [
        (CALLER, dict(CALLER)),
        ([("traceparent", f"00-{TRACE}-{PARENT}-00")], {"traceparent": f"00-{TRACE}-{PARENT}-00"}),
        ([], {}),
        ([("tracestate", "vendor=value")], {}),
        ([("traceparent", f"00-{'0' * 32}-{PARENT}-01")], {}),
        ([("traceparent", f"ff-{TRACE}-{PARENT}-01")], {}),
        ([("traceparent", f"00-{TRACE}-{PARENT}-01, {TRACE}")], {}),
        ([CALLER[0], ("tracestate", "v=" + "x" * 600)], dict([CALLER[0]])),
    ],
)
async def test_when_it_is_off_the_callers_context_goes_on(
    metadata: Any, headers: dict[str, str], standin: StandIn, lines: Lines
) -> None:
    async with connected(settings_for(standin)) as stub:
        await stub.CallTool(refine(), metadata=metadata)
    (sent,) = standin.requests
    assert {name: value for name, value in sent.headers.items() if name.startswith("trace")} == headers
    (line,) = lines.of("calls")
    assert line["trace_id"] == (TRACE if headers else "")
