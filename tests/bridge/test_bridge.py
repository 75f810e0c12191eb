"""What clients of MCP see of a service, in both revisions."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import grpc
import mcp_types as types
import pytest
from bridge.conftest import REVISIONS, talking_to
from mcp.shared.exceptions import MCPError

from agenta_ai import (
    AudioContent,
    CallFailed,
    CallMeta,
    FieldViolation,
    Icon,
    ImageContent,
    Progress,
    ProgressStage,
    ResourceLink,
    TextContent,
    Tool,
    ToolAnnotations,
    ToolError,
    ToolPage,
    ToolResult,
)

if TYPE_CHECKING:
    from bridge.conftest import ScriptedService

Code = grpc.StatusCode
OBJECT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOL = Tool(
    name="tools.acme.support.classify",
    title="Classify",
    description="Says which queue a ticket belongs to.",
    input_schema=OBJECT,
    output_schema={"type": "object", "properties": {"queue": {"type": "string"}}},
    annotations=ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    icons=(Icon("https://acme.example/icon.png", "image/png", ("48x48",)),),
)


def failure(code: Code, text: str, **details: Any) -> CallFailed:
    return CallFailed(text, code=code, request_id="00000000-0000-4000-8000-000000000000", **details)


def repeating(request_id: object) -> types.RequestParamsMeta:
    meta: dict[str, Any] = {"ai.agenta/call": {"requestId": request_id}}
    return cast("types.RequestParamsMeta", meta)


def text_of(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


@pytest.mark.parametrize("revision", REVISIONS)
async def test_tools_are_listed_page_by_page(fake: ScriptedService, revision: str) -> None:
    other = Tool(name="tools.acme.support.other", input_schema=OBJECT)
    fake.pages = {"": ToolPage((TOOL,), "next", ttl=30.5, is_public=True), "next": ToolPage((other,), ttl=30)}
    async with talking_to(fake, revision) as client:
        first = await client.list_tools()
        second = await client.list_tools(cursor=first.next_cursor)

    tool = first.tools[0]
    assert (tool.name, tool.title, tool.description) == (TOOL.name, TOOL.title, TOOL.description)
    assert (tool.input_schema, tool.output_schema) == (TOOL.input_schema, TOOL.output_schema)
    assert tool.annotations == types.ToolAnnotations(
        title="Classify", read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    assert tool.icons == [types.Icon(src="https://acme.example/icon.png", mime_type="image/png", sizes=["48x48"])]
    assert [tool.name for tool in second.tools] == [other.name]
    assert second.next_cursor is None
    if revision == REVISIONS[0]:
        assert (first.ttl_ms, first.cache_scope) == (30_500, "public")
        assert (second.ttl_ms, second.cache_scope) == (30_000, "private")


@pytest.mark.parametrize(("revision", "has_schema"), [(REVISIONS[0], True), (REVISIONS[1], False)])
async def test_results_that_are_no_objects_are_structured_only_where_they_may_be(
    fake: ScriptedService, revision: str, has_schema: bool
) -> None:
    tool = Tool(name=TOOL.name, input_schema=OBJECT, output_schema={"type": "array", "items": {"type": "integer"}})
    fake.pages = {"": ToolPage((tool,))}
    fake.add_answers(ToolResult((TextContent("Three."),), [1, 2, 3]))
    async with talking_to(fake, revision) as client:
        listed = (await client.list_tools()).tools[0]
        result = await client.call_tool(TOOL.name, {"text": "…"})
    assert bool(listed.output_schema) == has_schema
    assert result.structured_content == ([1, 2, 3] if has_schema else None)
    assert [block.text for block in result.content if isinstance(block, types.TextContent)] == ["Three.", "[1, 2, 3]"]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_result_is_there_for_people_and_for_programs(fake: ScriptedService, revision: str) -> None:
    content = (
        TextContent("Billing."),
        ImageContent(b"\x89PNG", "image/png"),
        AudioContent(b"RIFF", "audio/wav"),
        ResourceLink("https://acme.example/1", "one", "One", "", "text/plain", 3),
    )
    fake.add_answers(
        ToolResult(
            content, {"queue": "billing"}, meta=CallMeta("ab" * 16, replayed=True, warnings=("Old.",)), call_id="c1"
        ),
    )
    async with talking_to(fake, revision) as client:
        result = await client.call_tool(TOOL.name, {"text": "My invoice is wrong."})

    assert not result.is_error
    assert result.structured_content == {"queue": "billing"}
    assert result.content == [
        types.TextContent(text="Billing."),
        types.ImageContent(data=base64.b64encode(b"\x89PNG").decode(), mime_type="image/png"),
        types.AudioContent(data=base64.b64encode(b"RIFF").decode(), mime_type="audio/wav"),
        types.ResourceLink(uri="https://acme.example/1", name="one", title="One", mime_type="text/plain", size=3),
        types.TextContent(text='{"queue": "billing"}'),
    ]
    sent = fake.calls[0]
    assert (sent.method, sent.name, sent.arguments) == ("CallToolStream", TOOL.name, {"text": "My invoice is wrong."})
    assert UUID(sent.request_id).version == 4
    assert result.meta
    assert result.meta["ai.agenta/call"] == {
        "requestId": sent.request_id,
        "callId": "c1",
        "traceId": "ab" * 16,
        "replayed": True,
        "warnings": ["Old."],
    }


FAILURES: dict[str, tuple[ToolResult | CallFailed, str, dict[str, Any]]] = {
    "wrong arguments": (
        failure(
            Code.INVALID_ARGUMENT,
            "arguments.text: is missing; arguments.txt: is not an argument.",
            reason="ARGUMENTS_INVALID",
            field_violations=[FieldViolation("arguments.text", "is missing")],
            tool_was_run=False,
        ),
        "arguments.text: is missing; arguments.txt: is not an argument.",
        {"reason": "ARGUMENTS_INVALID", "fieldViolations": [{"field": "arguments.text", "description": "is missing"}]},
    ),
    "a rate limit": (
        failure(
            Code.RESOURCE_EXHAUSTED,
            "Rate limited. Try again in 12 s.",
            reason="RATE_LIMITED",
            retry_delay=11.5,
            tool_was_run=False,
        ),
        "Rate limited. Try again in 12 s.",
        {"reason": "RATE_LIMITED", "retryDelaySeconds": 11.5},
    ),
    "an outage that says when": (
        failure(
            Code.UNAVAILABLE,
            "Too many calls are running. Try again in 3 s.",
            reason="OVERLOADED",
            retry_delay=2.5,
            tool_was_run=False,
        ),
        "Too many calls are running. Try again in 3 s.",
        {"reason": "OVERLOADED", "retryDelaySeconds": 2.5},
    ),
    "an outage that does not": (
        failure(Code.UNAVAILABLE, "Cannot reach 10.0.0.1:1: connection refused. Nothing was sent.", tool_was_run=False),
        "Cannot reach 10.0.0.1:1: connection refused. Nothing was sent. Try again in 30 s.",
        {"retryDelaySeconds": 30.0},
    ),
    "a feature that is off": (
        failure(Code.UNAVAILABLE, "The service is not configured.", reason="SERVICE_DISABLED", tool_was_run=False),
        "The service is not configured.",
        {"reason": "SERVICE_DISABLED"},
    ),
    "an open outcome": (
        failure(
            Code.DEADLINE_EXCEEDED,
            "No answer from 10.0.0.1:1 within 90 s. Allow more time. The call may have run and may have been billed. "
            "To get its result, send it again with request_id 00000000-0000-4000-8000-000000000000.",
        ),
        "No answer from 10.0.0.1:1 within 90 s. Allow more time. The call may have run and may have been billed.",
        {"requestId": "00000000-0000-4000-8000-000000000000"},
    ),
    "credentials": (
        failure(Code.UNAUTHENTICATED, "10.0.0.1:1 requires credentials. Pass api_key.", reason="CREDENTIALS_INVALID"),
        "The service does not accept the credentials of agenta-ai mcp. Set a valid AGENTA_AI_API_KEY, or use a target "
        "that has one, and restart the server.",
        {"reason": "CREDENTIALS_INVALID"},
    ),
    "a tool that failed": (
        ToolResult(
            (TextContent("The completion service is unavailable. Try again."),),
            is_error=True,
            error=ToolError("UPSTREAM_UNAVAILABLE", retryable=True, retry_delay=20),
            call_id="c1",
        ),
        "The completion service is unavailable. Try again in 20 s.",
        {"reason": "UPSTREAM_UNAVAILABLE", "retryable": True, "retryDelaySeconds": 20.0, "callId": "c1"},
    ),
}


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_tells_a_model_what_to_do(fake: ScriptedService, revision: str, case: str) -> None:
    answer, sentence, facts = FAILURES[case]
    fake.add_answers(answer)
    async with talking_to(fake, revision) as client:
        result = await client.call_tool(TOOL.name, {})
    assert result.is_error
    assert text_of(result) == sentence
    assert len(result.content) == 1
    assert result.structured_content is None
    assert result.meta
    assert facts.items() <= result.meta["ai.agenta/error"].items()
    assert ("retryDelaySeconds" in facts) == ("retryDelaySeconds" in result.meta["ai.agenta/error"])


@pytest.mark.parametrize("case", FAILURES)
async def test_callers_on_other_machines_do_not_learn_where_the_service_is(fake: ScriptedService, case: str) -> None:
    answer, _, facts = FAILURES[case]
    fake.add_answers(answer)
    async with talking_to(fake, remote=True) as client:
        result = await client.call_tool(TOOL.name, {})
    told = result.model_dump_json()
    assert "10.0.0.1" not in told
    assert "AGENTA_AI_API_KEY" not in told
    if "retryDelaySeconds" in facts:
        assert "ry again in" in text_of(result)
    if case == "an open outcome":
        assert text_of(result) == "There was no answer in time. The call may have run and may have been billed."


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("underscore", [False, True])
async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(
    fake: ScriptedService, revision: str, underscore: bool
) -> None:
    fake.add_answers(failure(Code.NOT_FOUND, "There is no such tool.", reason="TOOL_NOT_FOUND", tool_was_run=False))
    async with talking_to(fake, revision, underscore=underscore) as client:
        with pytest.raises(MCPError, match=r"There is no tool 'tools__a__b__c'\.") as error:
            await client.call_tool("tools__a__b__c", {})
    assert error.value.code == types.INVALID_PARAMS


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [(Code.INVALID_ARGUMENT, "REQUEST_INVALID", types.INVALID_PARAMS), (Code.UNAVAILABLE, "", types.INTERNAL_ERROR)],
)
async def test_a_list_that_cannot_be_had_says_why(
    fake: ScriptedService, code: Code, reason: str, expected: int
) -> None:
    fake.pages["nonsense"] = failure(code, "page_token: is not one of this server's.", reason=reason)
    async with talking_to(fake) as client:
        with pytest.raises(MCPError, match="page_token") as error:
            await client.list_tools(cursor="nonsense")
    assert error.value.code == expected


async def test_no_argument_is_asked_for_in_a_header(fake: ScriptedService) -> None:
    text = {"type": "string", "x-mcp-header": "Text"}
    fake.pages = {"": ToolPage((Tool(name=TOOL.name, input_schema={**OBJECT, "properties": {"text": text}}),))}
    async with talking_to(fake) as client:
        tool = (await client.list_tools()).tools[0]
    assert tool.input_schema == OBJECT


@pytest.mark.parametrize("revision", REVISIONS)
async def test_names_without_dots(fake: ScriptedService, revision: str) -> None:
    fake.pages = {"": ToolPage((TOOL,))}
    fake.add_answers(ToolResult((TextContent("Billing."),), {"queue": "billing"}))
    async with talking_to(fake, revision, underscore=True) as client:
        listed = (await client.list_tools()).tools[0].name
        assert listed == "tools__acme__support__classify"
        await client.call_tool(listed, {"text": "…"})
    assert fake.calls[-1].name == TOOL.name


STEPS = (
    Progress(ProgressStage.QUEUED, "The call is number 2 in the queue.", queue_position=2),
    Progress(ProgressStage.STARTED, "The tool has started."),
    Progress(ProgressStage.RUNNING_CASES, "0 of 3 cases are done.", done=0, total=3),
    Progress(ProgressStage.RUNNING_CASES, "0 of 3 cases are done.", done=0, total=3),
    Progress(ProgressStage.RUNNING_CASES, "2 of 3 cases are done.", done=2, total=3),
    Progress(ProgressStage.CHECKING, "An answer has come and is being checked."),
)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_progress_goes_on_and_never_back(fake: ScriptedService, revision: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    fake.add_answers((*STEPS, ToolResult((TextContent("Done."),))))
    async with talking_to(fake, revision) as client:
        await client.call_tool(TOOL.name, {}, progress_callback=on_progress)
    assert [message for _, _, message in seen] == [step.text for step in STEPS]
    assert [total for _, total, _ in seen] == [None, None, 5, 5, 5, None]
    places = [progress for progress, _, _ in seen]
    assert all(one < next_ for one, next_ in itertools.pairwise(places))


async def test_progress_is_sent_only_to_those_who_asked(fake: ScriptedService) -> None:
    noticed: list[object] = []

    async def on_message(message: object) -> None:
        noticed.append(message)

    fake.add_answers((*STEPS, ToolResult((TextContent("Done."),))))
    client = talking_to(fake, REVISIONS[1])
    client.message_handler = on_message
    async with client:
        await client.call_tool(TOOL.name, {})
    assert not noticed


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_program_may_repeat_its_own_call(fake: ScriptedService, revision: str) -> None:
    fake.add_answers(ToolResult((TextContent("Done."),)))
    request_id = "0a0a0a0a-0000-4000-8000-000000000000"
    async with talking_to(fake, revision) as client:
        await client.call_tool(TOOL.name, {}, meta=repeating(request_id))
        wrong = await client.call_tool(TOOL.name, {}, meta=repeating(3))
    assert [call.request_id for call in fake.calls] == [request_id]
    assert text_of(wrong) == '_meta: "ai.agenta/call" must be an object with a string requestId.'


async def test_each_call_has_a_request_id_of_its_own(fake: ScriptedService) -> None:
    fake.add_answers(*[ToolResult((TextContent("Done."),))] * 3)
    async with talking_to(fake) as client:
        for _ in range(3):
            await client.call_tool(TOOL.name, {})
    assert len({call.request_id for call in fake.calls}) == 3


async def test_arguments_that_cannot_be_sent_are_an_error_of_the_tool(fake: ScriptedService) -> None:
    async with talking_to(fake) as client:
        result = await client.call_tool(TOOL.name, {"number": 2**60})
    assert result.is_error
    assert text_of(result).startswith("arguments.number: ")
    assert not fake.calls
