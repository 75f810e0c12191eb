"""From Python's values to requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

import agenta_ai
from agenta_ai import InvalidInput, requests
from agenta_ai.requests import call_tool, read_template
from agenta_ai.v1 import tool_service_pb2 as pb


def sent(arguments: dict[str, Any]) -> Any:
    return call_tool("tools.x.y.z", arguments, None, 90).request


def test_every_public_name_is_there() -> None:
    assert set(agenta_ai.__all__) <= set(dir(agenta_ai))
    assert [name for name in agenta_ai.__all__ if not hasattr(agenta_ai, name)] == []
    assert not hasattr(agenta_ai, "Nothing")


@pytest.mark.parametrize(
    ("name", "arguments", "request_id", "complaint"),
    [
        (5, {}, None, "^name: must be a string, not a int"),
        ("a\ud800", {}, None, "^name: character 1"),
        ("a", [], None, "^arguments: must be a mapping, not a list"),
        ("a", {}, 5, "^request_id: must be a string, not a int"),
        ("a", {}, "\ud800", "^request_id: character 0"),
        ("a", {}, "", "^request_id: is empty"),
    ],
)
def test_what_is_no_call(name: Any, arguments: Any, request_id: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        call_tool(name, arguments, request_id, 90)


def test_each_call_has_a_request_id_of_its_own() -> None:
    first, second = sent({}).request_id, sent({}).request_id
    assert first != second
    assert len(first) == 36
    assert first[14] == "4"
    assert call_tool("x", {}, "mine", 90).request.request_id == "mine"  # type: ignore[attr-defined]


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n": 2**53 + 1}, r"arguments\.n: An integer beyond 2\*\*53"),
        ({"n": 10**5000}, r"arguments\.n: An integer beyond 2\*\*53"),
        ({"l": {"a\ud800": 1}}, r"arguments\.l: The key 'a\\ud800' is not text"),
        ({"l": [0, float("nan")]}, r"arguments\.l\[1\]: nan is not a JSON"),
        ({"l": {"x": b"bytes"}}, r"arguments\.l\.x: A bytes is not a JSON"),
        ({"l": {1: "x"}}, r"arguments\.l: The key '1' is not text"),
        ({"s": "a\ud800"}, r"arguments\.s: Character 1"),
        (nested(33), r"nested too deeply"),
    ],
)
def test_what_would_not_arrive_is_not_sent(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        sent(arguments)


def test_the_deepest_arguments_can_be_read() -> None:
    request = sent(nested(32))
    assert pb.CallToolRequest.FromString(request.SerializeToString()) == request


class Model:
    def model_dump_json(self, *, by_alias: bool) -> str:
        return '{"messages": [], "schema": 1}' if by_alias else '{"messages": [], "schema_": 1}'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ({"messages": [], "top_p": 1.0, "ü": None}, '{"messages": [], "top_p": 1.0, "ü": null}'),
        ('{ "messages":[]}', '{ "messages":[]}'),
        (Model(), '{"messages": [], "schema": 1}'),
    ],
)
def test_templates(template: Any, text: str) -> None:
    assert read_template(template) == (text, json.loads(text))


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{'messages': []}", "not JSON: Expecting property name"),
        (" \n", "not JSON: it is empty"),
        ("[]", "not a JSON object"),
        ({"messages": {1, 2}}, "set is not JSON serializable"),
        ({"top_p": float("nan")}, "not JSON compliant"),
        (7, "a int is neither"),
    ],
)
def test_what_is_no_template(template: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_template(template)


@pytest.mark.parametrize(("size", "fits"), [(1_048_576, True), (1_048_577, False)])
def test_the_size_is_checked_before_sending(size: int, fits: bool) -> None:
    rest = sent({"a": "x" * 1_000_000}).ByteSize() - 1_000_000
    if fits:
        assert sent({"a": "x" * (size - rest)}).ByteSize() == size
        return
    with pytest.raises(InvalidInput, match=r"1,048,577 bytes, and the limit is 1,048,576\. Nothing was sent"):
        sent({"a": "x" * (size - rest)})


def test_a_lost_outcome_is_run_again_only_on_request() -> None:
    assert not sent({}).rerun_if_outcome_unknown
    again: Any = call_tool("x", {}, "r", 90, rerun_if_outcome_unknown=True).request
    assert again.rerun_if_outcome_unknown


def test_the_refinement_is_asked_for_by_its_name() -> None:
    exchange = requests.refine_prompt(
        {"messages": []}, "brief", "shop", lambda name, arguments: call_tool(name, arguments, None, 90)
    )
    request = MessageToDict(exchange.request)
    assert request["name"] == "tools.agenta.api.refine_prompt"
    arguments = {"prompt_template_json": '{"messages": []}', "guidelines": "brief", "context": "shop"}
    assert request["arguments"] == arguments
