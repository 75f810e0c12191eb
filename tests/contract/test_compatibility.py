"""The last release and this version work together: its client with our server, and our client with its server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import REFINE, TEMPLATE, details
from conftest import settings_for
from contract.versions import TODAY, filled, released
from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import (
    AudioContent,
    CallFailed,
    Client,
    ImageContent,
    ResourceLink,
    ServiceState,
    TextContent,
    ToolResult,
)
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

OLD = released()
REQUEST_ID = "0b6b8a4e-6c0f-4f0e-9c55-3d3f6f0c2a11"


def refinement(guidelines: str = "", **more: Any) -> dict[str, Any]:
    return {
        "name": REFINE,
        "arguments": {"prompt_template_json": json.dumps(TEMPLATE), "guidelines": guidelines},
        **more,
    }


def holds(found: Any, expected: Any) -> bool:
    """Whether all that is expected is there; ``...`` stands for anything."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(key in found and holds(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(holds, found, expected))
    return expected is ... or bool(found == expected)


@pytest.mark.parametrize("name", OLD.messages)
def test_all_that_is_in_a_message_is_read_the_same_by_both(name: str) -> None:
    for old in filled(OLD, name):
        fields = json_format.MessageToDict(old)
        assert json_format.MessageToDict(TODAY[name].FromString(old.SerializeToString())) == fields
        today = json_format.ParseDict(fields, TODAY[name]())
        assert type(old).FromString(today.SerializeToString()) == old


ANNOTATIONS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": False, "openWorldHint": True}
TOOL = {
    "name": REFINE,
    "title": "Refine a prompt",
    "description": ...,
    "inputSchema": {"type": "object", "required": ["prompt_template_json"]},
    "outputSchema": {"type": "object"},
    "annotations": ANNOTATIONS,
}
META = {"traceId": ..., "attempts": [{"traceId": ..., "duration": ...}]}


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        (
            "Status",
            {},
            {
                "enabled": True,
                "state": "SERVICE_STATE_SERVING",
                "serverVersion": ...,
                "startTime": ...,
                "tools": [
                    {
                        "tool": TOOL,
                        "rateLimit": {"burst": 10, "refillPerMinute": 30, "remaining": 10, "nextCallDelay": "0s"},
                    }
                ],
                "rateLimiterState": "RATE_LIMITER_STATE_LOCAL",
            },
        ),
        ("ListTools", {"pageSize": 1}, {"tools": [TOOL], "ttl": "300s", "cacheScope": "CACHE_SCOPE_PUBLIC"}),
        (
            "CallTool",
            refinement(requestId=REQUEST_ID),
            {
                "content": [{"text": ...}],
                "structuredContent": {"messages": [..., ...], "prompt_template_json": ..., "summary": ...},
                "meta": META,
            },
        ),
        (
            "CallTool",
            refinement("standin: status=503 retry-after=90"),
            {
                "content": [{"text": ...}],
                "isError": True,
                "error": {"reason": "ERROR_REASON_UPSTREAM_UNAVAILABLE", "retryable": True, "retryDelay": "90s"},
                "meta": {"attempts": [{"duration": ...}]},
            },
        ),
        (
            "CallTool",
            refinement("standin: answer=lossy"),
            {
                "isError": True,
                "error": {
                    "reason": "ERROR_REASON_UPSTREAM_OUTPUT_INVALID",
                    "fieldViolations": [{"field": "messages", "description": ...}],
                },
                "meta": META,
            },
        ),
    ],
)
async def test_what_the_old_client_is_answered(
    method: str, request_: dict[str, Any], expected: dict[str, Any], standin: StandIn
) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_LIMITS="on")
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        answer = await getattr(OLD.stub(channel), method)(OLD.make(f"{method}Request", request_))
    found = json_format.MessageToDict(answer)
    assert holds(found, expected), found


async def test_the_old_client_repeats_a_call(address: str) -> None:
    request = OLD.make("CallToolRequest", refinement(requestId=REQUEST_ID))
    async with grpc.aio.insecure_channel(address) as channel:
        call = OLD.stub(channel).CallTool
        first, again = await call(request), await call(request)
    assert (first.meta.replayed, again.meta.replayed) == (False, True)


@pytest.mark.parametrize(
    ("method", "request_", "code", "expected"),
    [
        (
            "CallTool",
            {"name": REFINE},
            grpc.StatusCode.INVALID_ARGUMENT,
            {
                "ErrorInfo": {"reason": "ERROR_REASON_ARGUMENTS_INVALID", "domain": "agenta.ai"},
                "BadRequest": {"fieldViolations": [{"field": "arguments.prompt_template_json"}]},
            },
        ),
        (
            "CallTool",
            {"name": "tools.no.such.tool"},
            grpc.StatusCode.NOT_FOUND,
            {"ResourceInfo": {"resourceName": "tools.no.such.tool"}},
        ),
        (
            "ListTools",
            {"pageToken": "?"},
            grpc.StatusCode.INVALID_ARGUMENT,
            {"BadRequest": {"fieldViolations": [{"field": "page_token"}]}, "RequestInfo": {"requestId": ...}},
        ),
    ],
)
async def test_what_the_old_client_is_refused(
    method: str, request_: dict[str, Any], code: grpc.StatusCode, expected: dict[str, Any], address: str
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(OLD.stub(channel), method)(OLD.make(f"{method}Request", request_))
    assert refused.value.code() is code
    assert holds(details(refused.value), expected)


async def test_our_client_reads_the_old_servers_status() -> None:
    limit = {"burst": 10, "refillPerMinute": 30, "remaining": 0, "nextCallDelay": "2.5s"}
    answer = {
        "enabled": True,
        "state": "SERVICE_STATE_DEGRADED",
        "serverVersion": "0.1.0",
        "startTime": "2026-11-21T10:00:00Z",
        "tools": [{"tool": {"name": REFINE, "annotations": {"destructiveHint": False}}, "rateLimit": limit}],
        "rateLimiterState": "RATE_LIMITER_STATE_FALLBACK",
    }
    async with OLD.server({"Status": OLD.make("StatusResponse", answer)}) as address, Client(address) as client:
        status = await client.status()
    assert (status.enabled, status.state, status.server_version) == (True, ServiceState.DEGRADED, "0.1.0")
    assert status.start_time is not None
    assert status.start_time.isoformat() == "2026-11-21T10:00:00+00:00"
    (tool,) = status.tools
    assert tool.tool.annotations.destructive is False
    assert tool.rate_limit is not None
    assert (tool.rate_limit.remaining, tool.rate_limit.next_call_delay) == (0, 2.5)
    assert status.rate_limiter_state.value == "FALLBACK"


async def test_our_client_reads_the_old_servers_tools() -> None:
    answer = {"tools": [{**TOOL, "description": "d", "icons": [{"src": "data:", "sizes": ["any"]}]}], "ttl": "300s"}
    async with OLD.server({"ListTools": OLD.make("ListToolsResponse", answer)}) as address, Client(address) as client:
        (tool,) = await client.list_tools()
    assert (tool.name, tool.title, tool.description) == (REFINE, "Refine a prompt", "d")
    assert tool.input_schema["required"] == ["prompt_template_json"]
    assert tool.icons[0].sizes == ("any",)


async def test_our_client_reads_the_old_servers_result() -> None:
    answer = {
        "content": [
            {"text": "t"},
            {"image": {"data": "AAE=", "mimeType": "image/png"}},
            {"audio": {"data": "AAI=", "mimeType": "audio/wav"}},
            {"resourceLink": {"uri": "u", "name": "n", "title": "t", "description": "d", "mimeType": "m", "size": "0"}},
        ],
        "structuredContent": {"number": 1.5},
        "meta": {
            "traceId": "f" * 32,
            "attempts": [{"traceId": "e" * 32, "duration": "1.5s"}],
            "repaired": True,
            "replayed": True,
            "warnings": ["w"],
        },
    }
    async with OLD.server({"CallTool": OLD.make("CallToolResponse", answer)}) as address, Client(address) as client:
        result = await client.call_tool("tools.a.b.c", {})
    assert result.content == (
        TextContent("t"),
        ImageContent(b"\0\1", "image/png"),
        AudioContent(b"\0\2", "audio/wav"),
        ResourceLink("u", "n", "t", "d", "m", 0),
    )
    assert result.structured_content == {"number": 1.5}
    meta = result.meta
    assert (meta.trace_id, meta.repaired, meta.replayed, meta.warnings) == ("f" * 32, True, True, ("w",))
    assert [(attempt.trace_id, attempt.duration) for attempt in meta.attempts] == [("e" * 32, 1.5)]


async def test_our_client_asks_the_old_server_for_no_progress() -> None:
    answer = OLD.make("CallToolResponse", {"content": [{"text": "t"}]})
    async with OLD.server({"CallTool": answer}) as address, Client(address) as client:
        (result,) = [event async for event in client.stream_tool("tools.a.b.c", {})]
    assert isinstance(result, ToolResult)
    assert result.text == "t"


async def test_our_client_reads_the_old_servers_failure() -> None:
    error = {
        "reason": "ERROR_REASON_UPSTREAM_OUTPUT_INVALID",
        "retryable": True,
        "retryDelay": "2s",
        "fieldViolations": [{"field": "f", "description": "d"}],
    }
    failed = OLD.make("CallToolResponse", {"content": [{"text": "t"}], "isError": True, "error": error})
    async with OLD.server({"CallTool": failed}) as address, Client(address) as client:
        result = await client.call_tool("tools.a.b.c", {})
    assert result.is_error
    assert result.error is not None
    assert (result.error.reason, result.error.retryable, result.error.retry_delay) == (
        "UPSTREAM_OUTPUT_INVALID",
        True,
        2,
    )
    assert [(each.field, each.description) for each in result.error.field_violations] == [("f", "d")]


async def test_our_client_reads_the_old_servers_refusal() -> None:
    refusal = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="Too many.")
    for detail in (
        error_details_pb2.ErrorInfo(reason="ERROR_REASON_RATE_LIMITED", domain="agenta.ai"),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)),
        error_details_pb2.RequestInfo(request_id="id"),
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        refusal.details.append(packed)
    async with OLD.server({"CallTool": refusal}) as address, Client(address) as client:
        with pytest.raises(CallFailed) as failed:
            await client.call_tool("tools.a.b.c", {})
    error = failed.value
    assert (error.reason, error.retry_delay, error.call_id, error.tool_was_run) == ("RATE_LIMITED", 3, "id", False)


async def test_a_method_that_the_old_server_does_not_have() -> None:
    async with OLD.server({"Status": OLD.make("StatusResponse", {})}) as address, Client(address) as client:
        with pytest.raises(CallFailed) as failed:
            await client.list_tools()
    assert failed.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_each_released_method_is_called() -> None:
    assert OLD.methods == ["Status", "ListTools", "CallTool"], "a new one: test it too"
