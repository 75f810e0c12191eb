"""Every row of the status table that can be reached: who asks for what, and the exact answer."""

from __future__ import annotations

import asyncio
import base64
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from calls import REFINE, details, reason, refine, request
from conftest import connected, settings_for
from grpc import StatusCode

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.agenta import completions
from agenta_ai_server.domain.errors import ExceededQuota, Reason, Refused, Violation
from agenta_ai_server.rpc.status import CODES, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

CALL = "/agenta.ai.v1.ToolService/CallTool"
# The contract numbers refusals below it, and failures of tools from it.
FIRST_FAILURE = 100
LIST = "/agenta.ai.v1.ToolService/ListTools"
FIELD = "arguments.prompt_template_json"
UUID1 = "c232ab00-9414-11ec-b3c8-9f6bdeced846"


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


def too_deep() -> bytes:
    """A request with lists in lists beyond what protobuf reads, which is why protobuf can't make it."""
    value = b""
    for _ in range(60):
        items = b"\x0a" + _length(value) + value
        value = b"\x32" + _length(items) + items
    entry = b"\x0a\x01a\x12" + _length(value) + value
    arguments = b"\x0a" + _length(entry) + entry
    return b"\x12" + _length(arguments) + arguments


def _length(data: bytes) -> bytes:
    number = len(data)
    return bytes([number]) if number < 128 else bytes([number % 128 + 128, number // 128])


async def raw(channel: grpc.aio.Channel, method: str, data: bytes) -> object:
    call: Any = channel.unary_unary(method)
    return await call(data)


def paged(**fields: Any) -> tool_service_pb2.ListToolsRequest:
    return tool_service_pb2.ListToolsRequest(**fields)


# method, what is sent, code, reason, the field at fault, a word of its description or of the message
REFUSED: list[tuple[str, Message | bytes, StatusCode, str, str, str]] = [
    (CALL, b"\xff\xff\xff", StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED", "", "Generate the client"),
    (LIST, b"\xff", StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED", "", "Generate the client"),
    (CALL, too_deep(), StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED", "", "32 levels"),
    (CALL, b"\x0a" * (2**20 + 1), StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "", "1,048,577"),
    (CALL, request({}, request_id="7"), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "request_id", "version 4"),
    (CALL, request({}, request_id=UUID1), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "request_id", "version 4"),
    (LIST, paged(page_size=-1), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "page_size", "from 0 to 100"),
    (LIST, paged(page_token="?"), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "page_token", "next_page_token"),
    (
        LIST,
        paged(page_token=base64.b64encode(b"after:\xff").decode()),
        StatusCode.INVALID_ARGUMENT,
        "REQUEST_INVALID",
        "page_token",
        "next_page_token",
    ),
    (LIST, paged(page_token="\n\0" * 40_000), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "page_token", "previous"),
    (LIST, b"\x7a\0" * 40_000, StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED", "", "doesn't define"),
    (CALL, request({}, name=""), StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "name", "ListTools"),
    (CALL, b"", StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "name", "ListTools"),
    (CALL, request({}, name="tools"), StatusCode.NOT_FOUND, "TOOL_NOT_FOUND", "", "ListTools"),
    (CALL, request({}, name=REFINE + ".x"), StatusCode.NOT_FOUND, "TOOL_NOT_FOUND", "", "ListTools"),
    (CALL, request({}, name="x" * 50_000), StatusCode.NOT_FOUND, "TOOL_NOT_FOUND", "", "ListTools"),
    (CALL, request({}), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, "required"),
    (CALL, refine(""), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, "at least 1"),
    (CALL, refine("x" * 100_001), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, "at most 100000"),
    (CALL, request({"prompt_template_json": 1}), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, "string"),
    (CALL, request({"prompt_template_json": None}), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, "string"),
    (
        CALL,
        request({"prompt_template_json": float("nan")}),
        StatusCode.INVALID_ARGUMENT,
        "ARGUMENTS_INVALID",
        FIELD,
        "finite",
    ),
    (
        CALL,
        refine(guidelines="x" * 10_001),
        StatusCode.INVALID_ARGUMENT,
        "ARGUMENTS_INVALID",
        "arguments.guidelines",
        "10000",
    ),
    (
        CALL,
        refine(context="x" * 10_001),
        StatusCode.INVALID_ARGUMENT,
        "ARGUMENTS_INVALID",
        "arguments.context",
        "10000",
    ),
    (
        CALL,
        request({"prompt_template_json": "{}", **{f"k{number}": None for number in range(9_000)}}),
        StatusCode.INVALID_ARGUMENT,
        "ARGUMENTS_INVALID",
        "arguments.k",
        "Unknown argument",
    ),
    (
        CALL,
        request({"prompt_template_json": "{}", "k": [{}] * 50_000}),
        StatusCode.INVALID_ARGUMENT,
        "ARGUMENTS_INVALID",
        "arguments",
        "Too many values",
    ),
    (CALL, refine(tone="kind"), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", "arguments.tone", "guidelines"),
    *[
        (CALL, refine(template), StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID", FIELD, word)
        for template, word in [
            ("be nice", "isn't JSON"),
            ("\ufeff{}", "byte order mark"),
            ("[" * 4_000 + "]" * 4_000, "levels deep"),
            ("[" + "0," * 10_000 + "0]", "too many values"),
            ('{"messages": [], "n": NaN}', "NaN"),
            ('{"messages": [], "n": 1e999}', "too large"),
            ('{"messages": [], "n": ' + "1" * 5000 + "}", "too large"),
            ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
            ('{"messages": [], "messages": []}', "twice"),
            ("[]", "JSON object"),
            ("{}", "'messages'"),
            ({"messages": []}, "at least one message"),
            ({"messages": ["hi"]}, "messages[0] must be an object"),
            ({"messages": [{"role": "user", "content": "x"}, {"role": "robot"}]}, "messages[1].role"),
            ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content[0].text"),
            ({"messages": [{"role": "user", "content": [nested(20)]}]}, "16 levels"),
            ({"messages": [{"role": "user", "content": " "}, {"role": "tool", "content": "x"}]}, "No message has text"),
            ({"messages": [{"role": "user", "content": "{{$[?@.a==1e999]}}"}]}, "isn't a JSONPath"),
        ]
    ],
]


@pytest.mark.parametrize(("method", "sent", "code", "why", "field", "word"), REFUSED)
async def test_refused(
    method: str,
    sent: Message | bytes,
    code: StatusCode,
    why: str,
    field: str,
    word: str,
    address: str,
    standin: StandIn,
) -> None:
    data = sent if isinstance(sent, bytes) else sent.SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await raw(channel, method, data)
    error = refused.value
    found = details(error)
    assert error.code() is code
    assert found["ErrorInfo"] == {"reason": f"ERROR_REASON_{why}", "domain": "agenta.ai"}
    assert len(found["RequestInfo"]["requestId"]) == 32
    if field:
        violation = found["BadRequest"]["fieldViolations"][0]
        assert violation["field"].startswith(field)
        assert word in violation["description"]
        assert str(error.details()).startswith(field)
    assert word in str(error.details())
    assert ("ResourceInfo" in found) == (why == "TOOL_NOT_FOUND")
    assert standin.started == 0, "a refused call must not reach Agenta"


async def test_all_faults_of_the_arguments_are_told_at_once(stub: ToolServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(request({"guidelines": 1, "tone": "kind"}))
    fields = [violation["field"] for violation in details(refused.value)["BadRequest"]["fieldViolations"]]
    assert fields == ["arguments.prompt_template_json", "arguments.guidelines", "arguments.tone"]


async def test_a_message_cant_control_a_terminal(stub: ToolServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(refine(**{"\x1b[2J\u202e": "x"}))
    [violation] = details(refused.value)["BadRequest"]["fieldViolations"]
    assert violation["field"] == r"arguments.\x1b[2J\u202e"
    assert str(refused.value.details()).startswith(violation["field"])


async def test_disabled(standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")) as stub:
        status = await stub.Status(tool_service_pb2.StatusRequest())
        assert not status.enabled
        assert status.state == tool_service_pb2.SERVICE_STATE_DISABLED
        assert list(status.missing_settings) == ["AGENTA_AI_SERVICES_API_KEY"]
        assert not status.tools
        assert not (await stub.ListTools(paged())).tools
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(refine())
    assert refused.value.code() is StatusCode.UNAVAILABLE
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_SERVICE_DISABLED"
    assert refused.value.trailing_metadata()["grpc-retry-pushback-ms"] == "-1"


async def test_too_little_time(standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="50")) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(refine(), timeout=40)
    assert refused.value.code() is StatusCode.DEADLINE_EXCEEDED
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_DEADLINE_TOO_SHORT"
    assert standin.started == 0


# What the stand-in does, and the answer: reason, retryable, seconds of the delay.
FAILED: list[tuple[str, str, bool, float | None]] = [
    ("status=302", "UPSTREAM_REJECTED", False, None),
    ("status=404", "UPSTREAM_REJECTED", False, None),
    ("status=404 body=plain", "UPSTREAM_UNAVAILABLE", True, None),
    ("status=401", "UPSTREAM_CREDENTIALS_REJECTED", False, None),
    ("status=403", "UPSTREAM_CREDENTIALS_REJECTED", False, None),
    ("status=424", "UPSTREAM_PROVIDER_FAILED", True, None),
    ("status=429", "UPSTREAM_RATE_LIMITED", True, None),
    ("status=429 retry-after=7", "UPSTREAM_RATE_LIMITED", True, 7),
    ("status=429 retry-after=soon", "UPSTREAM_RATE_LIMITED", True, None),
    ("status=500", "UPSTREAM_FAILED", False, None),
    ("status=502 body=html", "UPSTREAM_FAILED", False, None),
    ("status=503 retry-after=2", "UPSTREAM_UNAVAILABLE", True, 2),
    ("status=503 retry-after='Wed, 21 Oct 2015 07:28:00 GMT'", "UPSTREAM_UNAVAILABLE", True, 0),
    ("status=504", "UPSTREAM_TIMEOUT", False, None),
    ("reset=headers", "UPSTREAM_BROKEN", False, None),
    ("reset=body", "UPSTREAM_BROKEN", False, None),
    ("close=headers", "UPSTREAM_BROKEN", False, None),
    ("close=body", "UPSTREAM_BROKEN", False, None),
    ("garbage", "UPSTREAM_BROKEN", False, None),
    ("body=broken", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("body=empty", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("body=html", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("huge=5", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("answer=prose", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("answer=null", "UPSTREAM_OUTPUT_INVALID", False, None),
    ("answer=fewer", "UPSTREAM_OUTPUT_INVALID", False, None),
]


@pytest.mark.parametrize(("fault", "why", "retryable", "delay"), FAILED)
async def test_failed(fault: str, why: str, retryable: bool, delay: float | None, stub: ToolServiceAsyncStub) -> None:
    response = await stub.CallTool(refine(guidelines=f"standin: {fault}"))
    assert reason(response) == why
    assert response.error.retryable is retryable
    assert response.error.HasField("retry_delay") == (delay is not None)
    assert response.error.retry_delay.ToSeconds() == (delay or 0)


@pytest.mark.parametrize("fault", ["delay=20", "stall=headers", "stall=body", "drip=0.05"])
async def test_timed_out(fault: str, standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_MAX_CALL_SECONDS="0.5", AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0")
    async with connected(settings) as stub:
        response = await stub.CallTool(refine(guidelines=f"standin: {fault}"))
    assert reason(response) == "UPSTREAM_TIMEOUT"
    assert not response.error.retryable
    await asyncio.wait_for(standin.when(lambda: standin.in_flight == 0), 5)


async def test_unreachable(standin: StandIn) -> None:
    async with connected(settings_for(standin)) as stub:
        await standin.stop()
        response = await stub.CallTool(refine())
    assert reason(response) == "UPSTREAM_UNREACHABLE"
    assert response.error.retryable


async def test_the_callers_deadline_leaves_time_for_an_answer(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "MARGIN_SECONDS", 3.0)
    async with connected(settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0")) as stub:
        response = await stub.CallTool(refine(guidelines="standin: delay=20"), timeout=4)
    assert reason(response) == "UPSTREAM_TIMEOUT"


async def test_a_caller_that_goes_away_closes_the_call_to_agenta(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    call = stub.CallTool(refine(guidelines="standin: delay=50"))
    running = asyncio.ensure_future(call)
    await standin.when(lambda: standin.in_flight == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(standin.when(lambda: standin.in_flight == 0), 5)
    assert standin.finished == 0


async def test_a_bug_is_told_apart_and_says_nothing(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise KeyError("sec" + "ret")

    monkeypatch.setattr("agenta_ai_server.tools.refine_prompt.template.parse", bug)
    async with connected(settings_for(standin)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await stub.CallTool(refine())
    found = details(broken.value)
    assert broken.value.code() is StatusCode.INTERNAL
    assert list(found) == ["RequestInfo"], "an ErrorInfo would promise that the tool was not run"
    assert "secret" not in str(broken.value)
    assert found["RequestInfo"]["requestId"] in caplog.text
    assert "KeyError" in caplog.text
    assert "in bug" in caplog.text
    assert "secret" not in caplog.text


async def test_an_unknown_method_is_unimplemented(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await raw(channel, "/agenta.ai.v1.ToolService/Nothing", b"")
    assert refused.value.code() is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("why", CODES)
async def test_the_details_of_every_refusal_are_small(why: Reason, make_call: Callable[[], Any]) -> None:
    long = "\U0001f600" * 5000
    refused = Refused(
        why,
        long,
        violations=[Violation(long, long)] * 50,
        retry_delay=3600.5,
        resource=long,
        quota=ExceededQuota("bucket:" + "0" * 32, "organization-tool", 10, "Calls of this tool."),
    )
    answer = refusal(refused, make_call())
    assert sum(len(key) + len(value) for key, value in answer.trailers) < 8192


async def test_no_more_of_a_text_is_escaped_than_is_shown(make_call: Callable[[], Any]) -> None:
    """To escape a megabyte would keep all other calls waiting for a second."""
    long = "\x01" * 1_000_000
    refused = Refused(Reason.TOOL_NOT_FOUND, long, violations=[Violation(long, long)], resource=long)
    steps = count()
    sys.setprofile(lambda *_: next(steps))
    try:
        refusal(refused, make_call())
    finally:
        sys.setprofile(None)
    assert next(steps) < 100_000


def test_every_reason_has_one_meaning() -> None:
    values = tool_service_pb2.DESCRIPTOR.pool.FindEnumTypeByName("agenta.ai.v1.ErrorReason").values
    reasons = {value.name.removeprefix("ERROR_REASON_"): value.number for value in values if value.number}
    deprecated = {"SHUTTING_DOWN"}
    assert set(Reason) == reasons.keys() - deprecated
    assert set(CODES) == {why for why in Reason if reasons[why] < FIRST_FAILURE}


async def test_two_hundred_cancelled_calls_leave_no_connection(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    calls = [stub.CallTool(refine(guidelines="standin: delay=50")) for _ in range(200)]
    running = [asyncio.ensure_future(call) for call in calls]
    await asyncio.wait_for(standin.when(lambda: standin.in_flight == 200), 20)
    for call in calls:
        call.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    async with asyncio.timeout(20):
        await standin.when(lambda: standin.in_flight == 0)
        while standin.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the end of a connection is seen a little after that of its call
