"""What a failed attempt of a call means: from gRPC's errors to :class:`agenta_ai.CallFailed`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agenta_ai.errors import CallFailed, sentence
from agenta_ai.meta import FieldViolation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration

    from agenta_ai.meta import Metadata

DOMAIN = "agenta.ai"
REASON_PREFIX = "ERROR_REASON_"
CALL_ID_TRAILER = "x-request-id"
NOTHING_WAS_SENT = "Nothing was sent."

# gRPC's messages for attempts that were never sent: no address was found, or no connection was made.
_UNRESOLVED = ("errors resolving", "DNS resolution failed")
_UNSENT = ("connections to all backends failing", "failed to connect to all addresses", *_UNRESOLVED)
_LAST_ERROR = re.compile(
    r"^.*last error: (?:[A-Z_]+: )?(?P<address>(?:ipv[46]|unix|vsock)\S*): (?:Failed to connect to remote host: )?"
)

# BoringSSL's words.
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)")
_IS_IT_RUNNING = "Is agenta-ai-server running there?"

_Detail = TypeVar("_Detail", bound=Message)


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def trailers_of(metadata: Iterable[Any] | None) -> Metadata:
    """Return metadata in a form that doesn't depend on gRPC."""
    return tuple((key, value) for key, value in metadata or ())


def call_id_of(trailers: Metadata) -> str:
    """Return the server's own id of a call that ended well; empty if it didn't send one."""
    return next((value for key, value in trailers if key == CALL_ID_TRAILER and isinstance(value, str)), "")


def call_failed(
    error: grpc.RpcError,
    *,
    target: str,
    tls: bool,
    request_id: str,
    timeout: float,
    credentials: str = "",
    open_before: bool = False,
) -> CallFailed:
    """Return the exception for an error of gRPC.

    Args:
        error: What a stub raised, of either kind of channel.
        target: The server, as the user wrote it.
        tls: Whether the connection has TLS.
        request_id: The idempotency key that was sent; empty if no tool was called.
        timeout: The seconds that the call had.
        credentials: Name of the argument with the credential; empty if there was none.
        open_before: Whether an earlier attempt of this call may have run the tool.
    """
    code, message = error.code(), error.details() or ""
    status = _rich_status(error)
    info = _detail(status, error_details_pb2.ErrorInfo())
    ours = info.domain == DOMAIN
    reason = info.reason.removeprefix(REASON_PREFIX) if ours else ""
    retry = _detail(status, error_details_pb2.RetryInfo())
    delay = seconds(retry.retry_delay) if retry.HasField("retry_delay") else None
    request = _detail(status, error_details_pb2.BadRequest())
    violations = [FieldViolation(v.field, v.description) for v in request.field_violations]
    trailers = trailers_of(error.trailing_metadata())
    call_id = _detail(status, error_details_pb2.RequestInfo()).request_id or call_id_of(trailers)
    unsent = code is grpc.StatusCode.UNAVAILABLE and message.startswith(_UNSENT)
    if reason == "CREDENTIALS_INVALID":
        text = _who_calls(target, credentials)
    elif ours:
        text = _of_the_service(reason, message or code.name, violations, delay, request_id)
    elif unsent:
        text = _unreachable(message, target, tls, open_before)
    else:
        text = sentence(_of_grpc(code, message, target, timeout), violations, delay)
    if code is grpc.StatusCode.INTERNAL and call_id:
        text = f"{text.rstrip('.')}. The server logged it as call {call_id}."
    # A server that doesn't have the method ran nothing. A status of others doesn't say what the service did.
    not_run = ours or unsent or code is grpc.StatusCode.UNIMPLEMENTED
    is_open = bool(request_id) and (open_before or not not_run)
    return CallFailed(
        outcome_open(text, request_id) if is_open else text,
        code=code,
        reason=reason,
        message=message,
        field_violations=violations,
        retry_delay=delay,
        request_id=request_id,
        call_id=call_id,
        tool_was_run=False if not_run and not is_open else None,
        trailers=trailers,
    )


def timed_out(target: str, timeout: float, request_id: str, *, is_open: bool) -> CallFailed:
    """Return the exception for a deadline that passes between two attempts."""
    text = _no_answer(target, timeout)
    return CallFailed(
        outcome_open(text, request_id) if is_open and request_id else text,
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        request_id=request_id,
        tool_was_run=None if is_open else False,
    )


def no_token_in_time(timeout: float, request_id: str) -> CallFailed:
    """Return the exception for a call whose token isn't there before its deadline."""
    return CallFailed(
        f"token_provider made no token within {timeout:g} s. {NOTHING_WAS_SENT} Allow more time, or cache the token.",
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        request_id=request_id,
        tool_was_run=False,
    )


def closed_during(request_id: str, *, is_open: bool = True) -> CallFailed:
    """Return what to raise if the client is closed during a call, whose request_id is empty if it calls no tool."""
    text = "The client was closed"
    return CallFailed(
        outcome_open(text, request_id) if is_open and request_id else f"{text}.",
        code=grpc.StatusCode.CANCELLED,
        message=text,
        request_id=request_id,
        tool_was_run=None if is_open else False,
    )


def outcome_open(text: str, request_id: str) -> str:
    """Return the sentence, with how to get the result of a call whose outcome is unknown."""
    return (
        f"{text if text.endswith(('.', '?')) else text + '.'} The call may have run and may have been billed. "
        f"To get its result, send it again with request_id {request_id}."
    )


def _rich_status(error: grpc.RpcError) -> status_pb2.Status:
    # A proxy may cut or rewrite trailers. The status itself still counts, so unreadable details are as good as none.
    try:
        return rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status()
    except (ValueError, DecodeError):
        return status_pb2.Status()


def _detail(status: status_pb2.Status, empty: _Detail) -> _Detail:
    """Return the detail of the type of ``empty``, which is returned as it came if there is none."""
    for packed in status.details:
        try:
            if packed.Unpack(empty):
                break
        except DecodeError:
            empty.Clear()
    return empty


def _who_calls(target: str, credentials: str) -> str:
    if not credentials:
        return f"{target} requires credentials. Pass api_key, token or token_provider."
    return f"{target} does not accept the credentials from {credentials}. Pass valid ones."


def _of_the_service(
    reason: str, message: str, violations: list[FieldViolation], delay: float | None, request_id: str
) -> str:
    if reason == "RATE_LIMITED":
        return "Rate limited." if delay is None else sentence("Rate limited. Try again.", (), delay)
    text = sentence(message, violations, delay)
    if reason == "REPLAY_STORE_UNAVAILABLE" and request_id:
        # The server wants the same one, and a caller that didn't pass one doesn't know it.
        return f"{text.rstrip('.')}. Use request_id {request_id}."
    return text


def _of_grpc(code: grpc.StatusCode, message: str, target: str, timeout: float) -> str:
    """Return the sentence for a status from gRPC or a proxy, with what to do."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _no_answer(target, timeout)
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"No answer from {target}: {message or 'the connection broke'}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"{target} has no agenta.ai.v1.ToolService. Check that it is the address of an agenta-ai-server. {message}"
        )
    return f"{code.name}: {message}"


def _no_answer(target: str, timeout: float) -> str:
    return f"No answer from {target} within {timeout:g} s. Allow more time."


def _unreachable(message: str, target: str, tls: bool, open_before: bool) -> str:
    what, remedy = _why_unreachable(message, target, tls)
    sent = "" if open_before else f" {NOTHING_WAS_SENT}"
    return f"Cannot reach {target} {'with TLS' if tls else 'without TLS'}: {what}.{sent} {remedy}"


def _why_unreachable(message: str, target: str, tls: bool) -> tuple[str, str]:
    """Return why there was no connection, and what to do."""
    if message.startswith(_UNRESOLVED):
        return "the name cannot be resolved", "Check the name."
    why = _LAST_ERROR.sub("", message).strip().rstrip(".")
    if "Connection refused" in message:
        return _refused(message, target)
    if "backend unhealthy" in message:
        return "the server isn't accepting calls at the moment", "Try again later, or ask its operator."
    if "WRONG_VERSION_NUMBER" in message:
        return "the server has no TLS", "To connect without TLS, choose plaintext."
    if untrusted := _UNTRUSTED.search(message):
        return f"its certificate is not trusted ({untrusted[1]})", "Check the certificate, or trust its authority."
    if "handshake" in message.lower():
        return why, "If the server has no TLS, choose plaintext; otherwise, check its certificate and your authorities."
    if "Socket closed" in message or "connection reset" in message.lower():
        # TLS 1.3 also ends like this for a client that lacks a required certificate.
        hint = "Does it require another client certificate?" if tls else "Does it require TLS? Then pass tls=True."
        return "the server closes the connection", hint
    return why, _IS_IT_RUNNING


def _refused(message: str, target: str) -> tuple[str, str]:
    # If a name has several addresses, as localhost has, gRPC reports only the last error, which may hide the one that
    # matters.
    found = _LAST_ERROR.match(message)
    address = unquote(found["address"].partition(":")[2]) if found else ""
    if not address or address in target:
        return "connection refused", _IS_IT_RUNNING
    others = "Other addresses of the name may fail for other reasons: try each."
    return f"connection refused by {address}", f"{_IS_IT_RUNNING} {others}"
