"""The tool through the wire: what goes to Agenta, and what comes back of a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from calls import REFINE, TEMPLATE, reason, refine, structured
from google.protobuf import json_format

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.received import INVOKE_PATH

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent.parent / "data/prompt_templates").iterdir()}


def sent(standin: StandIn) -> Any:
    """What the service sent to Agenta, the template read."""
    body = json.loads(standin.requests[-1].body)
    inputs = body["data"]["inputs"]
    inputs["__ag_prompt_template_json"] = json.loads(inputs["__ag_prompt_template_json"])
    return body


def writes(standin: StandIn, *answers: object) -> None:
    """Let the model write these answers, one for each call."""
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    standin.respond = in_turn(*(Fault(text=text) for text in texts))


async def test_agenta_gets_what_was_recorded(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    await stub.CallTool(refine(guidelines="be clear"))
    assert standin.requests[-1].path == INVOKE_PATH
    assert sent(standin) == {
        "data": {
            "inputs": {"__ag_prompt_template_json": TEMPLATE, "__ag_guidelines": "be clear", "__ag_context": ""},
        },
        "references": {"application": {"slug": "ai-refine"}, "environment": {"slug": "production"}},
    }


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_recorded_template_goes_through(name: str, stub: ToolServiceAsyncStub) -> None:
    template = json.loads(TEMPLATES[name])
    result = structured(await stub.CallTool(refine(TEMPLATES[name], guidelines="Be brief.")))
    refined = json.loads(result["prompt_template_json"])
    assert refined != template
    assert {**refined, "messages": None} == {**template, "messages": None}
    assert [message["role"] for message in result["messages"]] == [message["role"] for message in template["messages"]]
    assert result["messages"] == refined["messages"]


async def test_the_result_fits_the_schema_that_the_tool_states(stub: ToolServiceAsyncStub) -> None:
    tools = await stub.ListTools(tool_service_pb2.ListToolsRequest())
    tool = json_format.MessageToDict(tools.tools[0])
    assert tool["name"] == REFINE
    for schema in (tool["inputSchema"], tool["outputSchema"]):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(schema)
    assert tool["inputSchema"]["type"] == "object"
    result = structured(await stub.CallTool(refine(MIXED)))
    jsonschema.Draft202012Validator(tool["outputSchema"]).validate(result)


MIXED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Please be kind.", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Please look at {{thing}}."},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                {"type": "text", "text": "   "},
                {"type": "text", "text": "Please explain it", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c2", "function": {"name": "f"}}]},
        {"role": "tool", "content": "Please stay", "tool_call_id": "c1"},
        {"role": "function", "content": "Please stay", "name": "f"},
        {"role": "assistant", "content": ""},
        {"role": "developer", "content": "Please use {{thing}}"},
    ],
    "llm_config": {"model": "m", "temperature": 0.10, "seed": 12345678901234567890, "top_p": 1.0},
    "x": {"ключ": ["ü", "\U0001f600", "\u2028"]},
}


async def test_only_texts_are_sent_and_put_back(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    contents = ["A", "B {{thing}}", "C", "D {{thing}}"]
    roles = ["system", "user", "user", "developer"]
    answer = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    writes(standin, {"messages": answer, "summary": "s"})
    result = structured(await stub.CallTool(refine(MIXED)))

    template = sent(standin)["data"]["inputs"]["__ag_prompt_template_json"]
    assert template["messages"] == [
        {"role": "system", "content": "Please be kind."},
        {"role": "user", "content": "Please look at {{thing}}."},
        {"role": "user", "content": "Please explain it"},
        {"role": "developer", "content": "Please use {{thing}}"},
    ]
    expected = json.loads(json.dumps(MIXED))
    expected["messages"][0]["content"] = "A"
    expected["messages"][1]["content"][0]["text"] = "B {{thing}}"
    expected["messages"][1]["content"][3]["text"] = "C"
    expected["messages"][7]["content"] = "D {{thing}}"
    refined = json.loads(result["prompt_template_json"])
    assert refined == expected
    assert list(refined) == list(MIXED)
    assert result["messages"] == [
        {"role": message["role"], "content": message.get("content")} for message in expected["messages"]
    ]


async def test_a_template_of_plain_messages_goes_as_it_came(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    source = '{ "messages" : [ {"content": "Hi {{x}}", "role": "user"} ],  "n": 1.50 }'
    await stub.CallTool(refine(source))
    assert standin.requests[-1].inputs["__ag_prompt_template_json"] == source


GOOD = [{"role": "system", "content": "A"}, {"role": "user", "content": "B {{input_text}}"}]


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        ({"messages": GOOD, "summary": "Tightened."}, "Tightened."),
        ({"messages": GOOD}, "The prompt was refined."),
        ({"messages": GOOD, "summary": ["a"]}, "The prompt was refined."),
        ({"messages": GOOD, "summary": " \n "}, "The prompt was refined."),
        ({"messages": GOOD, "summary": " two\n lines "}, "two lines"),
        ({"messages": GOOD, "summary": "x" * 501}, "x" * 499 + "…"),
        ("```json\n" + json.dumps({"messages": GOOD, "summary": "s"}) + "\n```", "s"),
        ("```\n" + json.dumps({"messages": GOOD, "summary": "s"}) + "```\n", "s"),
        ("\n " + json.dumps({"messages": GOOD, "summary": "s"}) + "\n", "s"),
        ({"messages": [{**message, "note": 1} for message in GOOD], "summary": "s", "more": []}, "s"),
        ({"messages": [GOOD[0], {"role": "user", "content": "😀 {{input_text}}"}], "summary": "s"}, "s"),
    ],
)
async def test_usable_answers(answer: object, summary: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    writes(standin, answer)
    response = await stub.CallTool(refine())
    result = structured(response)
    assert result["summary"] == summary == response.content[0].text
    assert [set(message) for message in result["messages"]] == [{"role", "content"}] * 2


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ("{}", "messages"),
        ("[]", "messages"),
        ("null", "messages"),
        ("7", "messages"),
        ("", "answer"),
        ("{", "answer"),
        ("[" * 100_000, "answer"),
        ('{"messages": [], "messages": []}', "answer"),
        ('{"messages": NaN}', "answer"),
        ('{"messages": [{"role": "system", "content": "\\ud800"}, {"role": "user", "content": "B"}]}', "answer"),
        ({"messages": {}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": GOOD[:1]}, "messages"),
        ({"messages": [*GOOD, GOOD[1]]}, "messages"),
        ({"messages": ["A", "B"]}, "messages[0]"),
        ({"messages": GOOD[::-1]}, "messages[0].role"),
        ({"messages": [{"content": "A"}, GOOD[1]]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "A"}, GOOD[1]]}, "messages[0].role"),
        ({"messages": [GOOD[0], {"role": "user"}]}, "messages[1].content"),
        ({"messages": [GOOD[0], {"role": "user", "content": None}]}, "messages[1].content"),
        ({"messages": [GOOD[0], {"role": "user", "content": ["B {{input_text}}"]}]}, "messages[1].content"),
        ({"messages": [GOOD[0], {"role": "user", "content": ""}]}, "messages[1].content"),
        ({"messages": [GOOD[0], {"role": "user", "content": " \n\t"}]}, "messages[1].content"),
        ({"messages": [GOOD[0], {"role": "user", "content": "{{input_text}}" + "x" * 200_000}]}, "messages"),
    ],
)
async def test_unusable_answers(answer: object, field: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    writes(standin, answer)
    response = await stub.CallTool(refine())
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert not response.error.retryable
    assert response.error.field_violations[0].field == field
    assert response.content[0].text.endswith(", and was discarded; the prompt is unchanged.")
    assert len(response.meta.attempts) == 1
    assert response.meta.trace_id != ""
