from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from agenta_ai import CallFailed, CallMeta, FieldViolation, ToolFailed
from agenta_ai.errors import call_failed

if TYPE_CHECKING:
    from collections.abc import Callable

Code = grpc.StatusCode


class RpcError(grpc.RpcError):
    """What a stub raises."""

    def __init__(self, code: Code, message: str | None, trailers: Any) -> None:
        super().__init__()
        self._answers = (code, message, trailers)

    def code(self) -> Any:
        return self._answers[0]

    def details(self) -> Any:
        return self._answers[1]

    def trailing_metadata(self) -> Any:
        return self._answers[2]


REQUEST_ID = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"
MAY_BE_PAID = (
    ". The tool may have run, and may have been paid for: "
    f'call again with request_id="{REQUEST_ID}" to get its result, if there is one'
)


def failed(code: Code, message: str | None, trailers: Any = (), repeat_id: str = REQUEST_ID) -> CallFailed:
    return call_failed(RpcError(code, message, trailers), target="host:1", tls=False, repeat_id=repeat_id, timeout=2.5)


def rich(status: status_pb2.Status) -> CallFailed:
    code = next(code for code in Code if code.value[0] == status.code)
    return failed(code, status.message, [("grpc-status-details-bin", status.SerializeToString())])


RETRY = details.RetryInfo(retry_delay=Duration(seconds=11, nanos=5))
BAD = details.BadRequest(field_violations=[{"field": "arguments.context", "description": "is too long"}])


@pytest.mark.parametrize(
    ("code", "reason", "message", "extra", "sentence"),
    [
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", [RETRY], "rate limited: try again in 12 s"),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", [], "rate limited"),
        (Code.UNAVAILABLE, "OVERLOADED", "Too busy.", [RETRY], "Too busy; try again in 12 s"),
        (Code.UNAVAILABLE, "OVERLOADED", "Try again in 12 s.", [RETRY], "Try again in 12 s."),
        (Code.UNAVAILABLE, "OVERLOADED", "Too busy. Try again later.", [RETRY], "Too busy. Try again in 12 s."),
        (Code.UNAVAILABLE, "OVERLOADED", "Try again later; or ask.", [RETRY], "Try again in 12 s; or ask."),
        (
            Code.UNAVAILABLE,
            "OVERLOADED",
            "Nothing was sent: try again.",
            [RETRY],
            "Nothing was sent: try again in 12 s.",
        ),
        (Code.UNAVAILABLE, "OVERLOADED", "Try again later.", [], "Try again later."),
        (Code.UNAVAILABLE, "OVERLOADED", "Busy \x1b[2J\x9b2J", [], r"Busy \x1b[2J\x9b2J"),
        (Code.INVALID_ARGUMENT, "ARGUMENTS_INVALID", "Wrong.", [BAD], "Wrong; arguments.context: is too long"),
        (Code.INVALID_ARGUMENT, "ARGUMENTS_INVALID", "arguments.context: no", [BAD], "arguments.context: no"),
        (Code.NOT_FOUND, "TOOL_NOT_FOUND", "", [], "NOT_FOUND"),
        (Code.UNAVAILABLE, "A_NEW_ONE", "New.", [], "New."),
    ],
)
def test_what_the_service_says(
    refused: Callable[..., status_pb2.Status], code: Code, reason: str, message: str, extra: list[Any], sentence: str
) -> None:
    error = rich(refused(code, reason, message, *extra))
    assert str(error) == sentence
    assert (error.code, error.reason, error.message) == (code, reason, message)
    assert (error.request_id, error.tool_was_run) == ("call-7", False)
    assert error.retry_delay == (pytest.approx(11.000000005) if RETRY in extra else None)
    assert error.field_violations == ((FieldViolation("arguments.context", "is too long"),) if BAD in extra else ())


@pytest.mark.parametrize(
    ("code", "message", "repeat_id", "sentence"),
    [
        (Code.UNAVAILABLE, "Socket closed", "", "no answer from host:1; the connection may be broken: Socket closed"),
        (Code.DEADLINE_EXCEEDED, "", "", "no answer from host:1 within 2.5 s: allow more time"),
        (Code.DEADLINE_EXCEEDED, "", REQUEST_ID, "no answer from host:1 within 2.5 s: allow more time. The tool may"),
        (Code.UNIMPLEMENTED, "", "", "host:1 has no agenta.ai.v1.ToolService"),
        (Code.INTERNAL, "oops", "", "INTERNAL: oops"),
        (Code.RESOURCE_EXHAUSTED, None, "", "RESOURCE_EXHAUSTED: "),
    ],
)
def test_what_others_say(code: Code, message: str | None, repeat_id: str, sentence: str) -> None:
    error = failed(code, message, None, repeat_id)
    assert str(error).startswith(sentence)
    assert (error.reason, error.tool_was_run, error.request_id) == ("", None, "")


FAILING = "connections to all backends failing; last error: "


@pytest.mark.parametrize("repeat_id", ["", REQUEST_ID], ids=["Status", "CallTool"])
@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            FAILING + "Failed to connect to remote host",
            "cannot reach host:1: is agenta-ai-server running? Tried with pl",
        ),
        (FAILING + "backend unhealthy", "cannot reach host:1: it takes no calls at the moment"),
        (FAILING + "Tls handshake failed", "cannot reach host:1: does it speak TLS"),
        ("errors resolving host:1: [Domain name not found]", "cannot reach host:1: is agenta-ai-server running?"),
        ("DNS resolution failed for host:1: C-ares", "cannot reach host:1: is agenta-ai-server running?"),
    ],
)
def test_nobody_was_reached(message: str, repeat_id: str, sentence: str) -> None:
    error = failed(Code.UNAVAILABLE, message, None, repeat_id)
    assert str(error).startswith(sentence)
    # gRPC tells of the last attempt alone, and one before it may have been sent.
    assert error.tool_was_run is (None if repeat_id else False)
    doubt = ". If the connection was lost during the call, the tool may have run" + MAY_BE_PAID.partition("run")[2]
    assert str(error).endswith(doubt) is bool(repeat_id and message.startswith(FAILING))
    assert ("paid" in str(error)) is bool(repeat_id and message.startswith(FAILING))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.UNAVAILABLE, "Stream removed (Socket closed)"),
        (Code.UNAVAILABLE, "a proxy says: Failed to connect to remote host"),
        (Code.DEADLINE_EXCEEDED, FAILING),
        (Code.CANCELLED, "Stream removed"),
        (Code.INTERNAL, "oops."),
    ],
)
def test_what_may_have_been_paid_for(code: Code, message: str) -> None:
    error = failed(code, message, None)
    assert str(error).endswith(MAY_BE_PAID)
    assert error.tool_was_run is None
    assert "paid" not in str(failed(code, message, None, ""))


def test_a_bug_is_told_with_the_request_id() -> None:
    status = status_pb2.Status(code=13, message="Internal error: see the log.")
    status.details.add().Pack(details.RequestInfo(request_id="7f3c"))
    error = rich(status)
    assert str(error) == f"INTERNAL: Internal error: see the log (request id 7f3c){MAY_BE_PAID}"
    assert (error.request_id, error.tool_was_run) == ("7f3c", None)


def test_a_repeat_that_the_service_asks_for_is_told_with_its_id(refused: Callable[..., status_pb2.Status]) -> None:
    error = rich(refused(Code.UNAVAILABLE, "REPLAY_STORE_UNAVAILABLE", "Try again, with the same one.", RETRY))
    assert str(error) == f'Try again in 12 s, with the same one: request_id="{REQUEST_ID}"'
    assert error.message == "Try again, with the same one."


GARBLED = status_pb2.Status(code=14, message="down")
GARBLED.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")


@pytest.mark.parametrize(
    "trailer",
    [b"\xff\xff", status_pb2.Status(code=5, message="down").SerializeToString(), GARBLED.SerializeToString(), b""],
    ids=["garbage", "another code", "a garbled detail", "empty"],
)
def test_bad_trailers_leave_the_status(trailer: bytes) -> None:
    error = failed(Code.UNAVAILABLE, "down", [("grpc-status-details-bin", trailer)])
    assert (error.code, error.message, error.tool_was_run) == (Code.UNAVAILABLE, "down", None)


def test_a_foreign_error_info_proves_nothing() -> None:
    status = status_pb2.Status(code=14, message="down")
    status.details.add().Pack(details.ErrorInfo(domain="proxy.example.com", reason="ERROR_REASON_OVERLOADED"))
    error = rich(status)
    assert (error.reason, error.tool_was_run) == ("", None)


LOST = FieldViolation("messages", "It lost {{name}}.")


@pytest.mark.parametrize(
    ("message", "violations", "sentence"),
    [
        ("It lost {{name}}, and was discarded.", [LOST], "It lost {{name}}, and was discarded."),
        (
            "It lost {{name}}, and was discarded.",
            [LOST, FieldViolation("messages[1]", "It lost {{age}}.")],
            "It lost {{name}}, and was discarded; messages[1]: It lost {{age}}.",
        ),
        ("Not usable.", [LOST], "Not usable; messages: It lost {{name}}."),
        ("Not usable.", [FieldViolation("messages", "")], "Not usable; messages: "),
    ],
)
def test_no_fault_is_told_twice(message: str, violations: list[FieldViolation], sentence: str) -> None:
    assert str(ToolFailed(message, reason="", meta=CallMeta(), field_violations=violations)) == sentence


def test_a_failed_tool_says_all_that_is_known() -> None:
    error = ToolFailed(
        "The refinement was not usable.",
        reason="UPSTREAM_OUTPUT_INVALID",
        meta=CallMeta(trace_id="ab"),
        retryable=True,
        retry_delay=0.2,
        field_violations=[FieldViolation("messages[1].content", "lost {{name}}")],
    )
    expected = "The refinement was not usable; messages[1].content: lost {{name}}; try again in 1 s"
    assert str(error) == expected
    assert error.trace_id == "ab"
    assert str(ToolFailed("", reason="", meta=CallMeta())) == "the tool failed"
    assert str(ToolFailed("\x1b[2J", reason="", meta=CallMeta())) == r"\x1b[2J"
