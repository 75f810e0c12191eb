"""From responses to results."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

import agenta_ai
from agenta_ai import AgentaError, RateLimiterState, ServiceState, ToolFailed, requests, responses
from agenta_ai.requests import call_tool
from agenta_ai.v1 import content_pb2, tool_pb2
from agenta_ai.v1 import tool_service_pb2 as pb


def test_arguments_arrive_as_they_were() -> None:
    arguments = {"n": None, "t": True, "i": 3, "f": 1.5, "s": "é", "l": [1, [2], {"a": ()}], "big": 2**53, "d": {"": 0}}
    request: Any = call_tool("x", arguments, None, 90).request
    response = pb.CallToolResponse(structured_content=Value(struct_value=request.arguments))
    read = responses.read_result(response)
    assert read.structured_content == {**arguments, "l": [1, [2], {"a": []}]}
    assert isinstance(read.structured_content["i"], int)
    assert isinstance(read.structured_content["big"], int)


def test_status() -> None:
    limit = {"burst": 10, "refillPerMinute": 30, "remaining": 0, "nextCallDelay": "1.500s"}
    response = ParseDict(
        {
            "enabled": True,
            "state": "SERVICE_STATE_DRAINING",
            "serverVersion": "1.2.3",
            "startTime": "2026-11-21T10:00:00Z",
            "rateLimiterState": "RATE_LIMITER_STATE_FALLBACK",
            "tools": [{"tool": {"name": "a"}, "rateLimit": limit}, {"tool": {"name": "b"}}],
        },
        pb.StatusResponse(),
    )
    status = responses.read_status(response)
    assert (status.state, status.rate_limiter_state) == (ServiceState.DRAINING, RateLimiterState.FALLBACK)
    assert status.start_time == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert status.tools[0].rate_limit == agenta_ai.RateLimit(10, 30, 0, 1.5)
    assert status.tools[1].rate_limit is None


def test_what_a_newer_server_says_is_survived() -> None:
    status = responses.read_status(pb.StatusResponse(state=77, rate_limiter_state=77))  # type: ignore[arg-type]
    assert (status.state, status.rate_limiter_state) == (ServiceState.SERVING, RateLimiterState.UNSPECIFIED)
    assert status.start_time is None
    response = pb.CallToolResponse(
        content=[content_pb2.ContentBlock(), content_pb2.ContentBlock(text="no")],
        is_error=True,
        error={"reason": 199, "retryable": True},  # type: ignore[arg-type]
    )
    result = responses.read_result(response)
    assert result.content == (agenta_ai.TextContent("no"),)
    with pytest.raises(ToolFailed, match="no") as failure:
        result.raise_for_error()
    assert (failure.value.reason, failure.value.retryable) == ("199", True)


def test_tool() -> None:
    schema = {"type": "object", "properties": {"n": {"maximum": 5, "multipleOf": 0.5}}}
    fields = {
        "name": "a",
        "inputSchema": schema,
        "annotations": {"destructiveHint": False},
        "icons": [{"src": "data:,", "sizes": ["any"]}],
    }
    tool = responses.read_tool(ParseDict(fields, tool_pb2.Tool()))
    assert tool.input_schema == schema
    assert tool.annotations == agenta_ai.ToolAnnotations(destructive=False)
    assert tool.icons == (agenta_ai.Icon("data:,", "", ("any",)),)
    assert responses.read_tool(tool_pb2.Tool()).annotations == agenta_ai.ToolAnnotations()


def test_content_of_every_kind() -> None:
    blocks = [
        {"text": "t"},
        {"image": {"data": "AAE=", "mimeType": "image/png"}},
        {"audio": {"data": "AAE=", "mimeType": "audio/wav"}},
        {"resourceLink": {"uri": "u", "name": "n", "size": "0"}},
        {"resourceLink": {"uri": "u"}},
    ]
    response = ParseDict({"content": blocks}, pb.CallToolResponse())
    assert responses.read_result(response).content == (
        agenta_ai.TextContent("t"),
        agenta_ai.ImageContent(b"\0\1", "image/png"),
        agenta_ai.AudioContent(b"\0\1", "audio/wav"),
        agenta_ai.ResourceLink("u", "n", "", "", "", 0),
        agenta_ai.ResourceLink("u", "", "", "", "", None),
    )


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        [1],
        *(
            {"messages": [], "summary": "", "prompt_template_json": text}
            for text in ("{", "[]", '["ab"]', "[" * 100_000, 5)
        ),
        {"messages": [], "summary": 5, "prompt_template_json": "{}"},
        {"messages": "", "summary": "", "prompt_template_json": "{}"},
    ],
)
def test_an_answer_of_another_form(content: Any) -> None:
    response = ParseDict({"structuredContent": content}, pb.CallToolResponse())
    with pytest.raises(AgentaError, match="The answer of CallTool has a form") as odd:
        requests.refine_prompt({}, "", "", lambda name, rest: call_tool(name, rest, "r", 90)).result(response)
    assert type(odd.value) is AgentaError
    assert odd.value.request_id == "r"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        [7],
        [None],
        [{"role": "user"}],
        [{"role": "user", "content": float("nan")}],
        [{"role": "user", "content": ["Hi"]}],
        [{"role": "system", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}] * 2,
    ],
)
def test_a_refinement_keeps_the_form_of_the_messages(messages: Any) -> None:
    original = {"messages": [{"role": "user", "content": "Hello"}]}
    text = json.dumps({} if messages is None else {"messages": messages})
    result = agenta_ai.ToolResult(structured_content={"prompt_template_json": text, "messages": [], "summary": ""})
    with pytest.raises(ValueError, match="not a refinement of the original"):
        responses.read_refined(result, original)


def test_a_time_that_no_calendar_has() -> None:
    with pytest.raises(AgentaError, match="The answer of Status has a form"):
        requests.status(10).result(pb.StatusResponse(start_time=Timestamp(seconds=10**15)))


def test_what_came_at_the_end_of_a_call() -> None:
    trailers = (("x-request-id", "call-7"), ("x-ratelimit-remaining", "3"))
    result = responses.read_result(pb.CallToolResponse(), "r", trailers)
    assert (result.request_id, result.call_id, result.trailers) == ("r", "call-7", trailers)


def test_results_are_made_by_hand_in_a_line() -> None:
    refined = agenta_ai.RefinedPrompt({"messages": [{"role": "user", "content": "é"}]})
    assert refined.messages[0]["content"] == "é"
    assert refined.template_json == '{"messages": [{"role": "user", "content": "é"}]}'
    assert agenta_ai.ToolResult(structured_content=3).meta == agenta_ai.CallMeta()
    assert agenta_ai.ServiceStatus().enabled
    assert agenta_ai.Tool("a").annotations.destructive
