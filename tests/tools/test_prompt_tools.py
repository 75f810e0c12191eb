"""Tools that a file describes, called over the wire: what is sent to Agenta, and what becomes of its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from calls import REFINE, details, reason, request, structured
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.received import CHAT_INVOKE_PATH, CHAT_RUN_PATH, INVOKE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

    Write = Callable[[str], Path]

CLASSIFY, SUMMARIZE, TALK, EXTRACT = (
    f"tools.acme.support.{name}" for name in ("classify", "summarize", "talk", "extract")
)
FILE = f"""
[tools."{CLASSIFY}"]
application = "classify"
description = "Classifies."
hints = {{ read_only = true, destructive = false }}

[tools."{CLASSIFY}".arguments]
type = "object"
additionalProperties = false
required = ["ticket"]
properties.ticket = {{ type = "string", minLength = 1 }}
properties.language = {{ type = "string", default = "en" }}
properties.history = {{ type = "array", items = {{ type = "string" }} }}
properties.limit = {{ type = "integer", default = 3 }}

[tools."{CLASSIFY}".result]
type = "object"
additionalProperties = false
required = ["queue"]
properties.queue = {{ enum = ["billing", "other"] }}
properties.urgency = {{ type = "number" }}

[tools."{EXTRACT}"]
application = "extract"
description = "Extracts."
repairs = 1
feedback = "corrections"
arguments = {{ type = "object", properties = {{ text = {{ type = "string" }} }} }}
result = {{ type = "array", items = {{ type = "integer" }} }}

[tools."{SUMMARIZE}"]
application = "summarize"
environment = "staging"
description = "Summarizes."
permission = "view"
arguments = {{ type = "object", properties = {{ text = {{ type = "string" }} }} }}

[tools."{TALK}"]
application = "talk"
description = "Talks."
timeout_seconds = 30
arguments = {{ type = "object", properties = {{ company = {{ type = "string" }}, messages = {{ type = "array" }} }} }}
"""


def service(standin: StandIn, file: Path, **more: str) -> Any:
    return connected(settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(file), **more))


def says(standin: StandIn, *texts: str) -> None:
    """Let the model answer with these texts in turn."""
    standin.respond = in_turn(*(answers.invoked(text) for text in texts))


async def call(stub: ToolServiceAsyncStub, name: str, **arguments: Any) -> tool_service_pb2.CallToolResponse:
    return await stub.CallTool(request(arguments, name=name))


async def test_arguments_become_inputs(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE)) as stub:
        says(standin, '```json\n{"queue": "billing", "urgency": 1.50}\n```')
        response = await call(stub, CLASSIFY, ticket='Say "hi"', history=["a", "é"])
    assert structured(response) == {"queue": "billing", "urgency": 1.5}
    assert json.loads(response.content[0].text) == {"queue": "billing", "urgency": 1.5}
    (received,) = standin.requests
    assert received.path == INVOKE_PATH
    assert json.loads(received.body) == {
        "data": {"inputs": {"ticket": 'Say "hi"', "language": "en", "history": ["a", "é"], "limit": 3}},
        "references": {"application": {"slug": "classify"}, "environment": {"slug": "production"}},
    }


@pytest.mark.parametrize(("spaces", "turns"), [(1000, 0), (1 << 16, 2)])
async def test_long_answers_are_read_and_checked_in_turns(
    spaces: int, turns: int, standin: StandIn, write: Write, paced: list[Hashable]
) -> None:
    async with service(standin, write(FILE)) as stub:
        says(standin, f"[1,{' ' * spaces}2]")
        response = await call(stub, EXTRACT, text="x")
    assert response.content[0].text == "[1,2]"
    assert paced == [ANONYMOUS.key] * turns


async def test_what_is_left_out_is_an_empty_text(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE)) as stub:
        await call(stub, CLASSIFY, ticket="x")
    assert standin.requests[0].inputs == {"ticket": "x", "language": "en", "history": "", "limit": 3}


async def test_null_is_an_empty_text(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE.replace('type = "array"', 'type = ["array", "null"]', 1))) as stub:
        await call(stub, CLASSIFY, ticket="x", history=None)
    assert standin.requests[0].inputs == {"ticket": "x", "language": "en", "history": "", "limit": 3}


@pytest.mark.parametrize(
    ("arguments", "violations"),
    [
        ({}, {"arguments.ticket": "Required, and missing."}),
        ({"ticket": ""}, {"arguments.ticket": "Must have at least 1 character."}),
        (
            {"ticket": 1, "history": ["a", 2, None], "extra": {}},
            {
                "arguments.ticket": "Must be of type string.",
                "arguments.history[1]": "Must be of type string.",
                "arguments.history[2]": "Must be of type string.",
                "arguments.extra": "Unknown: the schema doesn't allow this key.",
            },
        ),
        ({"ticket": "x", "limit": 1.5}, {"arguments.limit": "Must be of type integer."}),
    ],
)
async def test_wrong_arguments_cost_nothing(
    standin: StandIn, write: Write, arguments: dict[str, Any], violations: dict[str, str]
) -> None:
    async with service(standin, write(FILE)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(stub, CLASSIFY, **arguments)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = details(error.value)["BadRequest"]["fieldViolations"]
    assert {each["field"]: each["description"] for each in found} == violations
    assert not standin.requests


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("Sure! billing", "answer"),
        ('{"queue": "billing", "queue": "other"}', "answer"),
        ('{"queue": "billing", "urgency": NaN}', "answer"),
        ("[" * 150 + "]" * 150, "answer"),
        ('"billing"', "answer"),
        ('{"queue": "sales"}', "queue"),
        ('{"queue": "billing", "mood": 1}', "mood"),
        ('{"urgency": 1}', "queue"),
        (json.dumps({"queue": "billing", "urgency": [0] * 10_000}), "answer"),
        ("x" * 400_001, "answer"),
    ],
)
async def test_answers_that_break_the_schema(standin: StandIn, write: Write, text: str, field: str) -> None:
    async with service(standin, write(FILE)) as stub:
        says(standin, text)
        response = await call(stub, CLASSIFY, ticket="x")
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert [violation.field for violation in response.error.field_violations] == [field]
    assert not response.error.retryable
    assert len(standin.requests) == len(response.meta.attempts) == 1, "it isn't asked for again"


async def test_an_answer_is_asked_for_once_more_where_the_tool_says_so(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE)) as stub:
        says(standin, '[1, "two"]', "[1, 2]")
        repaired = await call(stub, EXTRACT, text="x")
        says(standin, "[0.5]", "prose")
        failed = await call(stub, EXTRACT, text="x")
    assert structured(repaired) == [1, 2]
    assert repaired.meta.repaired
    first, second, *_ = standin.requests
    assert first.inputs == {"text": "x", "corrections": ""}
    assert second.inputs["corrections"].endswith("What was wrong:\n- [1]: Must be of type integer.")
    assert reason(failed) == "UPSTREAM_OUTPUT_INVALID"
    assert len(failed.meta.attempts) == 2
    assert not failed.meta.repaired


async def test_text(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE)) as stub:
        says(standin, '```\n{"not": "read"}\n```', "")
        response = await call(stub, SUMMARIZE, text="x")
        empty = await call(stub, SUMMARIZE)
    assert structured(response) == {"text": '```\n{"not": "read"}\n```'}
    assert response.content[0].text == '```\n{"not": "read"}\n```'
    assert structured(empty) == {"text": ""}
    assert [json.loads(each.body)["references"]["environment"]["slug"] for each in standin.requests] == ["staging"] * 2


@pytest.mark.parametrize("path", [CHAT_INVOKE_PATH, CHAT_RUN_PATH])
async def test_a_chat_application(standin: StandIn, write: Write, path: str) -> None:
    standin.lacks = frozenset({CHAT_INVOKE_PATH, CHAT_RUN_PATH} - {path})
    messages = [{"role": "user", "content": "Where is my parcel? I have waited for weeks."}]
    async with service(standin, write(FILE)) as stub:
        response = await call(stub, TALK, company="Acme", messages=messages)
    assert structured(response) == {"text": "Offline stand-in, no model was called: Acme"}
    received = standin.requests[-1]
    assert received.path == path
    assert received.inputs == {"company": "Acme", "messages": messages}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "Hel"}, {"type": "image_url"}, {"type": "text", "text": "lo"}], "Hello"),
        (None, None),
        ([{"type": "image_url"}], None),
    ],
)
async def test_messages_with_parts(standin: StandIn, write: Write, content: object, expected: str | None) -> None:
    standin.respond = in_turn(answers.invoked({"role": "assistant", "content": content}))
    async with service(standin, write(FILE)) as stub:
        response = await call(stub, TALK, messages=[])
    if expected is None:
        assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    else:
        assert structured(response) == {"text": expected}


async def test_failures_are_those_of_every_tool(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE), AGENTA_AI_GRPC_RETRIES="1") as stub:
        standin.respond = in_turn(Fault.parse("status=503 body=traceless"))
        assert structured(await call(stub, SUMMARIZE, text="x"))["text"]
        response = await call(stub, SUMMARIZE, text="standin: answer=null")
        assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(request({"text": "x"}, name=SUMMARIZE), timeout=0.5)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_repeats_are_billed_once(standin: StandIn, write: Write) -> None:
    again = request({"text": "x"}, name=SUMMARIZE, request_id="1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b")
    async with service(standin, write(FILE)) as stub:
        first, second = await stub.CallTool(again), await stub.CallTool(again)
    assert structured(first) == structured(second)
    assert second.meta.replayed
    assert len(standin.requests) == 1


async def test_without_the_refine_prompt(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE), AGENTA_AI_SERVICES_REFINE_PROMPT_KEY="") as stub:
        assert structured(await call(stub, SUMMARIZE, text="x"))
        status = await stub.Status(tool_service_pb2.StatusRequest())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(stub, REFINE)
    assert details(error.value)["ErrorInfo"]["reason"].endswith("SERVICE_DISABLED")
    assert status.enabled
    assert [tool.tool.name for tool in status.tools] == [CLASSIFY, EXTRACT, SUMMARIZE, TALK]


async def test_without_an_environment_those_remain_that_name_theirs(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE), AGENTA_AI_SERVICES_ENVIRONMENT_SLUG="") as stub:
        status = await stub.Status(tool_service_pb2.StatusRequest())
        assert structured(await call(stub, SUMMARIZE, text="x"))
    assert [tool.tool.name for tool in status.tools] == [SUMMARIZE]


async def test_a_tool_that_is_switched_off_is_not_there(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE), AGENTA_AI_GRPC_DISABLED_TOOLS=TALK) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(stub, TALK)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_callers_see(standin: StandIn, write: Write) -> None:
    async with service(standin, write(FILE)) as stub:
        listed = await stub.ListTools(tool_service_pb2.ListToolsRequest())
    tools = {tool.name: tool for tool in listed.tools}
    assert list(tools) == [CLASSIFY, EXTRACT, SUMMARIZE, TALK, REFINE]
    assert listed.ttl.ToSeconds() == 30, "the file may change"
    assert tools[CLASSIFY].title == "Classify"
    assert tools[CLASSIFY].annotations.read_only_hint
    assert not tools[CLASSIFY].annotations.destructive_hint
    assert not tools[CLASSIFY].annotations.HasField("idempotent_hint")
    assert tools[CLASSIFY].input_schema["properties"]["limit"]["default"] == 3
    assert tools[SUMMARIZE].output_schema["required"] == ["text"]


async def test_five_hundred_tools_are_listed_by_pages(standin: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "tools.toml"
    names = [f"tools.acme.many.tool_{number:03}" for number in range(500)]
    file.write_text("".join(f'[tools."{name}"]\napplication = "app"\ndescription = "d"\n' for name in names))
    found: list[str] = []
    token = ""
    async with service(standin, file, AGENTA_AI_GRPC_DISABLED_TOOLS=REFINE) as stub:
        while token or not found:
            page = await stub.ListTools(tool_service_pb2.ListToolsRequest(page_size=70, page_token=token))
            assert len(page.tools) <= 70
            found += [tool.name for tool in page.tools]
            token = page.next_page_token
        status = await stub.Status(tool_service_pb2.StatusRequest())
    assert found == names == [tool.tool.name for tool in status.tools]
