from __future__ import annotations

import copy
import pickle
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from agenta_ai import AgentaError, CallFailed, CallMeta, FieldViolation, InvalidInput, ToolFailed
from agenta_ai.failures import call_failed

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
OUTCOME_OPEN = (
    f" The call may have run and may have been billed. To get its result, send it again with request_id {REQUEST_ID}."
)


def failed(
    code: Code, message: str | None, trailers: Any = (), request_id: str = REQUEST_ID, **options: Any
) -> CallFailed:
    error = RpcError(code, message, trailers)
    return call_failed(error, target="host:1", tls=False, request_id=request_id, timeout=2.5, **options)


def rich(status: status_pb2.Status) -> CallFailed:
    code = next(code for code in Code if code.value[0] == status.code)
    return failed(code, status.message, [("grpc-status-details-bin", status.SerializeToString())])


RETRY = details.RetryInfo(retry_delay=Duration(seconds=11, nanos=5))
BAD = details.BadRequest(field_violations=[{"field": "arguments.context", "description": "is too long"}])


@pytest.mark.parametrize(
    ("code", "reason", "message", "extra", "sentence"),
    [
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", [RETRY], "Rate limited. Try again in 12 s."),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", [], "Rate limited."),
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
    assert (error.call_id, error.request_id, error.tool_was_run) == ("call-7", REQUEST_ID, False)
    assert error.retry_delay == (pytest.approx(11.000000005) if RETRY in extra else None)
    assert error.field_violations == ((FieldViolation("arguments.context", "is too long"),) if BAD in extra else ())


@pytest.mark.parametrize(
    ("code", "message", "sentence"),
    [
        (Code.UNAVAILABLE, "Socket closed", "No answer from host:1: Socket closed"),
        (Code.UNAVAILABLE, "", "No answer from host:1: the connection broke"),
        (Code.DEADLINE_EXCEEDED, "", "No answer from host:1 within 2.5 s. Allow more time."),
        (Code.UNIMPLEMENTED, "", "host:1 has no agenta.ai.v1.ToolService. Check that it is the address"),
        (Code.INTERNAL, "oops", "INTERNAL: oops"),
        (Code.RESOURCE_EXHAUSTED, None, "RESOURCE_EXHAUSTED: "),
    ],
)
def test_what_others_say(code: Code, message: str | None, sentence: str) -> None:
    error = failed(code, message, None, "")
    assert str(error).startswith(sentence)
    assert "billed" not in str(error)
    ran = False if code is Code.UNIMPLEMENTED else None
    assert (error.reason, error.tool_was_run, error.request_id, error.call_id) == ("", ran, "", "")


FAILING = "connections to all backends failing; last error: "
REFUSED = FAILING + "UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: connect: Connection refused (111)"
TLS = FAILING + (
    "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL "
    "routines:OPENSSL_internal:"
)
HANDSHAKE = FAILING + "UNAVAILABLE: ipv4:127.0.0.1:1: Ssl handshake failed: certificate verify failed"


@pytest.mark.parametrize("request_id", ["", REQUEST_ID], ids=["Status", "CallTool"])
@pytest.mark.parametrize(
    ("message", "why"),
    [
        (
            REFUSED,
            "connection refused by 127.0.0.1:1. Nothing was sent. Is agenta-ai-server running there? Other addresses "
            "of the name may fail for other reasons: try each.",
        ),
        (REFUSED.replace("ipv4:127.0.0.1", "ipv6:%5B::1%5D"), "connection refused by [::1]:1. Nothing was sent. Is"),
        (
            FAILING + "UNAVAILABLE: ipv4:127.0.0.1:1: backend unhealthy",
            "the server isn't accepting calls at the moment. Nothing was sent. Try again later, or ask its operator.",
        ),
        (
            HANDSHAKE,
            "Ssl handshake failed: certificate verify failed. Nothing was sent. If the server has no TLS, choose "
            "plaintext; otherwise, check its certificate and your authorities.",
        ),
        (
            TLS + "WRONG_VERSION_NUMBER: Invalid certificate verification context: OK",
            "the server has no TLS. Nothing was sent. To connect without TLS, choose plaintext.",
        ),
        (
            TLS + "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
            "its certificate is not trusted (unable to get local issuer certificate). Nothing was sent. Check the "
            "certificate, or trust its authority.",
        ),
        (FAILING + "ipv4:1.2.3.4:1: Network unreachable", "Network unreachable. Nothing was sent. Is agenta-ai-server"),
        ("errors resolving host:1: [Domain name not found]", "the name cannot be resolved. Nothing was sent. Check"),
        ("DNS resolution failed for host:1: C-ares", "the name cannot be resolved. Nothing was sent. Check the name."),
    ],
)
def test_nothing_was_sent(message: str, request_id: str, why: str) -> None:
    error = failed(Code.UNAVAILABLE, message, None, request_id)
    assert str(error).startswith(f"Cannot reach host:1 without TLS: {why}")
    assert "billed" not in str(error)
    assert error.tool_was_run is False
    assert error.message == message


def test_thousands_of_violations_are_told_at_once() -> None:
    violations = [FieldViolation(f"field{number}", f"rule {number}") for number in range(5_000)]
    start = time.process_time()
    error = ToolFailed("Words and more words. " * 4_000, reason="RESULT_INVALID", field_violations=violations)
    assert time.process_time() - start < 5  # with an expression for each: a minute
    assert str(error).endswith("; field4999: rule 4999")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.UNAVAILABLE, "Stream removed (Socket closed)"),
        (Code.UNAVAILABLE, "a proxy says: Failed to connect to remote host"),
        (Code.DEADLINE_EXCEEDED, FAILING),
        (Code.CANCELLED, "Stream removed"),
        (Code.INTERNAL, "oops."),
        (Code.UNKNOWN, "?"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max"),
        (Code.UNAUTHENTICATED, "a proxy says: No."),
        (Code.NOT_FOUND, "a proxy says: No."),
    ],
)
def test_the_outcome_is_open(code: Code, message: str) -> None:
    error = failed(code, message, None)
    assert str(error).endswith(OUTCOME_OPEN)
    assert (error.tool_was_run, error.request_id) == (None, REQUEST_ID)
    assert "billed" not in str(failed(code, message, None, ""))


def test_a_server_without_the_method_runs_nothing() -> None:
    error = failed(Code.UNIMPLEMENTED, "Method not found!", None)
    assert (error.tool_was_run, error.request_id) == (False, REQUEST_ID)
    assert "billed" not in str(error)
    assert failed(Code.UNIMPLEMENTED, "Method not found!", None, open_before=True).tool_was_run is None


def test_an_earlier_attempt_leaves_the_outcome_open(refused: Callable[..., status_pb2.Status]) -> None:
    unreachable = failed(Code.UNAVAILABLE, REFUSED, None, open_before=True)
    assert str(unreachable) == (
        "Cannot reach host:1 without TLS: connection refused by 127.0.0.1:1. Is agenta-ai-server running there? Other "
        "addresses of the name may fail for other reasons: try each." + OUTCOME_OPEN
    )
    assert unreachable.tool_was_run is None
    status = refused(Code.UNAVAILABLE, "OVERLOADED", "Too busy.")
    trailers = [("grpc-status-details-bin", status.SerializeToString())]
    later = failed(Code.UNAVAILABLE, "Too busy.", trailers, open_before=True)
    assert (str(later), later.tool_was_run) == ("Too busy." + OUTCOME_OPEN, None)


def test_a_bug_is_told_with_the_id_of_the_call() -> None:
    status = status_pb2.Status(code=13, message="Internal error: see the log.")
    status.details.add().Pack(details.RequestInfo(request_id="7f3c"))
    error = rich(status)
    assert str(error) == ("INTERNAL: Internal error: see the log. The server logged it as call 7f3c." + OUTCOME_OPEN)
    assert (error.call_id, error.request_id, error.tool_was_run) == ("7f3c", REQUEST_ID, None)


def test_the_id_of_the_call_is_also_in_a_trailer() -> None:
    assert failed(Code.UNAVAILABLE, "down", [("x-request-id", "7f3c")]).call_id == "7f3c"


def test_a_repeat_that_the_service_wants_is_told_with_its_id(refused: Callable[..., status_pb2.Status]) -> None:
    error = rich(refused(Code.UNAVAILABLE, "REPLAY_STORE_UNAVAILABLE", "Try again, with the same one.", RETRY))
    assert str(error) == f"Try again in 12 s, with the same one. Use request_id {REQUEST_ID}."
    assert error.message == "Try again, with the same one."


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            CallFailed("Rate limited.", code=Code.RESOURCE_EXHAUSTED, reason="RATE_LIMITED", call_id="7f3c"),
            "CallFailed('Rate limited.', code=RESOURCE_EXHAUSTED, reason='RATE_LIMITED', call_id='7f3c')",
        ),
        (
            ToolFailed("No model.", reason="UPSTREAM_UNAVAILABLE", retryable=True, request_id="r"),
            "ToolFailed('No model.', retryable=True, reason='UPSTREAM_UNAVAILABLE', request_id='r')",
        ),
    ],
)
def test_repr_shows_what_a_developer_needs(error: Exception, shown: str) -> None:
    assert repr(error) == shown


def _of_a_call() -> AgentaError:
    error = AgentaError("The answer has a form that this client doesn.t know.")
    error.request_id = REQUEST_ID
    return error


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
@pytest.mark.parametrize(
    "error",
    [
        failed(Code.UNAVAILABLE, "down", [("x-request-id", "7f3c"), ("a-bin", b"1")]),
        ToolFailed("No.", reason="UPSTREAM_TIMEOUT", meta=CallMeta("ab"), field_violations=[FieldViolation("f", "d")]),
        InvalidInput("timeout: must be a number."),
        _of_a_call(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_passes_between_processes(error: AgentaError, again: Callable[[AgentaError], AgentaError]) -> None:
    passed = again(error)
    assert (type(passed), str(passed), passed.args, vars(passed)) == (type(error), str(error), error.args, vars(error))


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
        (
            "arguments.feedback: Required, and missing.",
            [
                FieldViolation("arguments.feedback", "Required, and missing."),
                FieldViolation("arguments.language", "Required, and missing."),
                FieldViolation("arguments.feed", "Unknown."),
            ],
            "arguments.feedback: Required, and missing; arguments.language: Required, and missing; "
            "arguments.feed: Unknown.",
        ),
    ],
)
def test_each_fault_is_told_once(message: str, violations: list[FieldViolation], sentence: str) -> None:
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
    assert str(ToolFailed("", reason="", meta=CallMeta())) == "The tool failed."
    assert str(ToolFailed("\x1b[2J", reason="", meta=CallMeta())) == r"\x1b[2J"
