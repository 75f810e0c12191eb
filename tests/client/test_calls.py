from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

import agenta_ai
from agenta_ai import AgentaError, InvalidInput, RateLimiterState, ServiceState, ToolFailed, calls
from agenta_ai.v1 import content_pb2, tool_pb2
from agenta_ai.v1 import tool_service_pb2 as pb


def sent(arguments: dict[str, Any]) -> Any:
    return calls.call_tool("tools.x.y.z", arguments, None, 90).request


def test_every_public_name_is_there() -> None:
    assert [name for name in agenta_ai.__all__ if not hasattr(agenta_ai, name)] == []
    assert not hasattr(agenta_ai, "Nothing")


@pytest.mark.parametrize(
    ("target", "address", "loopback"),
    [
        ("127.0.0.1:50051", "dns:///127.0.0.1:50051", True),
        ("127.8.9.1:1", "dns:///127.8.9.1:1", True),
        ("localhost:50051", "dns:///localhost:50051", True),
        ("LOCALHOST:50051", "dns:///LOCALHOST:50051", True),
        ("[::1]:50051", "dns:///[::1]:50051", True),
        ("dns:[::1]:50051", "dns:[::1]:50051", True),
        ("ipv6:[::1]:1", "ipv6:[::1]:1", True),
        ("unix:///run/agenta.sock", "unix:///run/agenta.sock", True),
        ("unix:agenta,10.0.0.1:1", "unix:agenta,10.0.0.1:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("unix:/run/agenta.sock", "unix:/run/agenta.sock", True),
        ("unix-abstract:agenta", "unix-abstract:agenta", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("ai.example.com:443", "dns:///ai.example.com:443", False),
        ("localhost.example.com:443", "dns:///localhost.example.com:443", False),
        ("dns:///ai.example.com", "dns:///ai.example.com", False),
        ("dns://8.8.8.8/localhost:1", "dns://8.8.8.8/localhost:1", False),
        ("dns:///::1", "dns:///::1", False),
        ("dns:///[::1]evil.com:1", "dns:///[::1]evil.com:1", False),
        ("dns:///evil.com/localhost:1", "dns:///evil.com/localhost:1", False),
        ("ipv4:192.0.2.2:1/127.0.0.1:1", "ipv4:192.0.2.2:1/127.0.0.1:1", False),
        ("ipv4:127.0.0.1:1%2C192.0.2.2:1", "ipv4:127.0.0.1:1%2C192.0.2.2:1", False),
        ("127.0.0.256:1", "dns:///127.0.0.256:1", False),
        ("127.0.0.1.evil.com:1", "dns:///127.0.0.1.evil.com:1", False),
        ("unix://evil/x", "unix://evil/x", False),
        ("unix-abstract://evil/x", "unix-abstract://evil/x", False),
        ("UNIX:///x", "UNIX:///x", False),
        ("dns://127.0.0.1/ai.example.com:1", "dns://127.0.0.1/ai.example.com:1", False),
        ("xds:///localhost", "xds:///localhost", False),
        ("0.0.0.0:50051", "dns:///0.0.0.0:50051", False),
    ],
)
def test_targets(target: str, address: str, loopback: bool) -> None:
    connection = calls.connection(target)
    assert connection.address == address
    assert (connection.channel_credentials is None) is loopback


@pytest.mark.parametrize("target", ["", "http://127.0.0.1:50051", "https://ai.example.com"])
def test_a_web_address_is_no_target(target: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        calls.connection(target)


@pytest.mark.parametrize(
    "target",
    [
        "ipv4:192.0.2.2:47477?/127.0.0.1:1",
        "dns:///evil.com:50051?/localhost:1",
        "evil.com:50051?/localhost",
        "dns:///evil.com#/127.0.0.1",
        "unix:/run/agenta.sock ",
        "localhost:1\n",
        "localhost\x00:1",
        "localhost\u2028:1",
        "b\u00fccher.example:1",
    ],
)
def test_what_no_target_holds(target: str) -> None:
    with pytest.raises(InvalidInput, match="as no address does") as refused:
        calls.connection(target)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "target",
    [
        "[::1]evil.com:1",
        "evil.com/localhost:1",
        "localhost",
        "localhost:",
        "ai.example.com",
        ":50051",
        "::1",
        "[::1]",
        "::1:50051",
    ],
)
def test_a_target_names_its_port(target: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        calls.connection(target)


def test_tls_is_switched_off_only_in_so_many_words() -> None:
    own = grpc.ssl_channel_credentials()
    assert calls.connection("ai.example.com:443", tls=False).channel_credentials is None
    assert calls.connection("localhost:1", tls=True).channel_credentials is not None
    assert calls.connection("localhost:1", tls=own).channel_credentials is own


def test_a_target_is_a_string() -> None:
    with pytest.raises(InvalidInput, match="target: a NoneType is no string"):
        calls.connection(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="target: character 9 is half"):
        calls.connection("localhost\ud800:1")


@pytest.mark.parametrize(
    "timeout", [0, -1, float("inf"), float("nan"), 1e10, 31536001, pytest.param(10**5000, id="huge"), "5"]
)
def test_a_timeout_is_a_number_of_seconds_up_to_a_year(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        calls.connection("localhost:1", timeout=timeout)
    with pytest.raises(InvalidInput, match="timeout"):
        calls.status(timeout)
    with pytest.raises(InvalidInput, match="timeout"):
        calls.call_tool("x", {}, None, timeout)


def test_metadata_keys_are_lowercase() -> None:
    assert calls.call_metadata([("X-Team", "a"), ("y-bin", b"\0")]) == (("x-team", "a"), ("y-bin", b"\0"))


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        (("x-team", "secret\r\nx-admin: 1"), "the value of 'x-team' must be a line"),
        (("x-team", "secret\u00e9"), "the value of 'x-team' must be a line"),
        (("X-Team", 5), "the value of 'x-team' must be a line"),
        (("x-bin", "secret"), "the value of 'x-bin' must be bytes"),
        (("x team", "secret"), "keys have letters"),
        (("", "secret"), "keys have letters"),
        ((b"x", "secret"), "keys have letters"),
        ("secret", "must be pairs"),
    ],
)
def test_metadata_that_cannot_be_sent(pair: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"^metadata: .*{complaint}") as refused:
        calls.connection("localhost:1", metadata=[pair])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "arguments", "request_id", "complaint"),
    [
        (5, {}, None, "^name: a int is no string"),
        ("a\ud800", {}, None, "^name: character 1"),
        ("a", [], None, "^arguments: a list is no mapping"),
        ("a", {}, 5, "^request_id: a int is no string"),
        ("a", {}, "\ud800", "^request_id: character 0"),
    ],
)
def test_what_is_no_call(name: Any, arguments: Any, request_id: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        calls.call_tool(name, arguments, request_id, 90)


def test_arguments_arrive_as_they_were() -> None:
    arguments = {"n": None, "t": True, "i": 3, "f": 1.5, "s": "é", "l": [1, [2], {"a": ()}], "big": 2**53, "d": {"": 0}}
    response = pb.CallToolResponse(structured_content=Value(struct_value=sent(arguments).arguments))
    read = calls.read_result(response, "")
    assert read.structured_content == {**arguments, "l": [1, [2], {"a": []}]}
    assert isinstance(read.structured_content["i"], int)
    assert isinstance(read.structured_content["big"], int)


def test_each_call_has_a_request_id_of_its_own() -> None:
    first, second = sent({}).request_id, sent({}).request_id
    assert first != second
    assert len(first) == 36
    assert first[14] == "4"
    assert calls.call_tool("x", {}, "mine", 90).request.request_id == "mine"  # type: ignore[attr-defined]


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n": 2**53 + 1}, r"arguments\.n: an integer beyond 2\*\*53"),
        ({"n": 10**5000}, r"arguments\.n: an integer beyond 2\*\*53"),
        ({"l": {"a\ud800": 1}}, r"arguments\.l: the key 'a\\ud800': character 1"),
        ({"l": [0, float("nan")]}, r"arguments\.l\[1\]: nan is no JSON"),
        ({"l": {"x": b"bytes"}}, r"arguments\.l\.x: a bytes is no JSON"),
        ({"l": {1: "x"}}, r"arguments\.l: the key 1 is no string"),
        ({"s": "a\ud800"}, r"arguments\.s: character 1"),
        (nested(33), r"nested too deep"),
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
    assert calls.read_template(template) == (text, json.loads(text))


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{'messages': []}", "no JSON: Expecting property name"),
        (" \n", "no JSON: it is empty"),
        ("[]", "no JSON object"),
        ({"messages": {1, 2}}, "set is not JSON serializable"),
        ({"top_p": float("nan")}, "not JSON compliant"),
        (7, "a int is neither"),
    ],
)
def test_what_is_no_template(template: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        calls.read_template(template)


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
    status = calls.read_status(response)
    assert (status.state, status.rate_limiter_state) == (ServiceState.DRAINING, RateLimiterState.FALLBACK)
    assert status.start_time == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert status.tools[0].rate_limit == agenta_ai.RateLimit(10, 30, 0, 1.5)
    assert status.tools[1].rate_limit is None


def test_what_a_newer_server_says_is_survived() -> None:
    status = calls.read_status(pb.StatusResponse(state=77, rate_limiter_state=77))  # type: ignore[arg-type]
    assert (status.state, status.rate_limiter_state) == (ServiceState.SERVING, RateLimiterState.UNSPECIFIED)
    assert status.start_time is None
    response = pb.CallToolResponse(
        content=[content_pb2.ContentBlock(), content_pb2.ContentBlock(text="no")],
        is_error=True,
        error={"reason": 199, "retryable": True},  # type: ignore[arg-type]
    )
    result = calls.read_result(response, "")
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
    tool = calls.read_tool(ParseDict(fields, tool_pb2.Tool()))
    assert tool.input_schema == schema
    assert tool.annotations == agenta_ai.ToolAnnotations(destructive=False)
    assert tool.icons == (agenta_ai.Icon("data:,", "", ("any",)),)
    assert calls.read_tool(tool_pb2.Tool()).annotations == agenta_ai.ToolAnnotations()


def test_content_of_every_kind() -> None:
    blocks = [
        {"text": "t"},
        {"image": {"data": "AAE=", "mimeType": "image/png"}},
        {"audio": {"data": "AAE=", "mimeType": "audio/wav"}},
        {"resourceLink": {"uri": "u", "name": "n", "size": "0"}},
        {"resourceLink": {"uri": "u"}},
    ]
    response = ParseDict({"content": blocks}, pb.CallToolResponse())
    assert calls.read_result(response, "").content == (
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
    with pytest.raises(AgentaError, match="the answer of CallTool is not of the form") as odd:
        calls.refine_prompt({}, "", "", None, 90).result(response)
    assert type(odd.value) is AgentaError


def test_a_time_that_no_calendar_has() -> None:
    with pytest.raises(AgentaError, match="the answer of Status is not of the form"):
        calls.status(None).result(pb.StatusResponse(start_time=Timestamp(seconds=10**15)))


def test_the_refinement_is_asked_for_by_its_name() -> None:
    exchange = calls.refine_prompt({"messages": []}, "brief", "shop", None, 90)
    request = MessageToDict(exchange.request)
    assert request["name"] == "tools.agenta.api.refine_prompt"
    arguments = {"prompt_template_json": '{"messages": []}', "guidelines": "brief", "context": "shop"}
    assert request["arguments"] == arguments
