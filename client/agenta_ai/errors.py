"""How a call can end other than well.

Three classes, because callers must be able to tell three things apart: :class:`InvalidInput` was never sent,
:class:`CallFailed` came back as a status, :class:`ToolFailed` means that the tool ran and failed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agenta_ai.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.duration_pb2 import Duration

    from agenta_ai.results import CallMeta

DOMAIN = "agenta.ai"
CLOSED = "the client is closed"
REASON_PREFIX = "ERROR_REASON_"

# How gRPC says that an attempt was never sent: no address was found, or no connection came about. It tells of the last
# attempt alone, and one before it may have been sent, if there was an address: gRPC keeps those that it has once found.
# Whether the channel was ready meanwhile would tell more, but without asyncio gRPC watches it in a thread that delays
# the closing of the client, and fails there at times.
_UNRESOLVED = ("errors resolving", "DNS resolution failed")
_UNSENT = ("connections to all backends failing", "failed to connect to all addresses", *_UNRESOLVED)
# With these and no word from the service, nobody knows what became of the call.
_OPEN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
)

_TRY_AGAIN = re.compile(r"\b(try again)(?: later\b|(?=[.;,]|$))", re.IGNORECASE)

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that one field broke: its path, ``"arguments.guidelines"``, and what is wrong, in a sentence."""

    field: str
    description: str


class AgentaError(Exception):
    """Every error of this client. Raised itself when an answer can't be understood, and by a client that is closed."""


class InvalidInput(AgentaError, ValueError):
    """What was passed can't be sent. Nothing was."""


class CallFailed(AgentaError):
    """The call ended with a status other than OK. ``str()`` is one sentence that names the way out.

    Attributes:
        code: The status.
        reason: Name of the contract's ``ErrorReason`` without its prefix, for example ``"RATE_LIMITED"``. Empty if the
            status isn't from the service itself.
        message: The status's own text.
        field_violations: The fields of the request that are at fault, if that is why.
        retry_delay: Seconds after which a new attempt makes sense; ``None`` if unknown.
        request_id: What the server calls this call, for its operator's logs. Empty if it didn't say.
        tool_was_run: ``False`` if the service says that it did not run the tool, and for a call that runs none and was
            not sent; else ``None``. A call of a tool that finds nobody has ``None`` too: gRPC sends it more than once
            and tells how the last attempt ended, and the tool may have run in one before.
    """

    def __init__(
        self,
        sentence: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        message: str = "",
        field_violations: Sequence[FieldViolation] = (),
        retry_delay: float | None = None,
        request_id: str = "",
        tool_was_run: bool | None = None,
    ) -> None:
        super().__init__(printable(sentence))
        self.code = code
        self.reason = reason
        self.message = message
        self.field_violations = tuple(field_violations)
        self.retry_delay = retry_delay
        self.request_id = request_id
        self.tool_was_run = tool_was_run


class ToolFailed(AgentaError):
    """The tool ran and failed. ``str()`` is one sentence that names the way out.

    Attributes:
        reason: Name of the contract's ``ErrorReason`` without its prefix, for example ``"UPSTREAM_TIMEOUT"``; the
            number, as text, of one that this version doesn't know.
        message: What the tool said.
        retryable: Whether the same call with the same request_id may succeed later, and nothing was bought by this one.
        retry_delay: Seconds to wait before that; ``None`` if unknown.
        field_violations: The rules that the tool's answer broke, if that is why.
        meta: How the result came about.
        trace_id: ``meta.trace_id``.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        meta: CallMeta,
        retryable: bool = False,
        retry_delay: float | None = None,
        field_violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(printable(_sentence(message or "the tool failed", field_violations, retry_delay)))
        self.message = message
        self.reason = reason
        self.meta = meta
        self.trace_id = meta.trace_id
        self.retryable = retryable
        self.retry_delay = retry_delay
        self.field_violations = tuple(field_violations)


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def call_failed(
    error: grpc.RpcError, *, target: str, tls: bool, repeat_id: str, timeout: float, credentials: str = ""
) -> CallFailed:
    """Reads what gRPC raised.

    Args:
        error: What a stub raised, of either kind of channel.
        target: The server, as the user wrote it.
        tls: Whether the connection has TLS.
        repeat_id: The request_id that was sent; empty if no tool was called.
        timeout: The seconds that it had.
        credentials: Name of the argument that said who calls; empty if none did.
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
    request_id = _detail(status, error_details_pb2.RequestInfo()).request_id
    unsent = _is_unsent(code, message)
    not_run = ours or (unsent and not repeat_id)
    if reason == "RATE_LIMITED":
        sentence = _sentence("rate limited", (), delay, joint=": ")
    elif reason == "CREDENTIALS_INVALID":
        sentence = _who_calls(target, credentials)
    else:
        why = message or code.name if ours else _explanation(code, message, target, tls, timeout)
        sentence = _sentence(why, violations, delay)
    if code is grpc.StatusCode.INTERNAL and request_id:
        sentence = f"{sentence.rstrip('.')} (request id {request_id})"
    if reason == "REPLAY_STORE_UNAVAILABLE" and repeat_id:
        # The server asks for it, and who didn't pass one doesn't know it.
        sentence = f'{sentence.rstrip(".")}: request_id="{repeat_id}"'
    if code in _OPEN and not ours and not (unsent and message.startswith(_UNRESOLVED)):
        tool = "If the connection was lost during the call, the tool" if unsent else "The tool"
        sentence = _in_doubt(sentence, repeat_id, tool)
    return CallFailed(
        sentence,
        code=code,
        reason=reason,
        message=message,
        field_violations=violations,
        retry_delay=delay,
        request_id=request_id,
        tool_was_run=False if not_run else None,
    )


def closed_during(repeat_id: str) -> CallFailed:
    """What to raise if the client was closed during a call, whose request_id is empty if it calls no tool."""
    return CallFailed(_in_doubt("the client was closed", repeat_id), code=grpc.StatusCode.CANCELLED)


def _in_doubt(sentence: str, repeat_id: str, tool: str = "The tool") -> str:
    # Only a tool costs anything.
    if not repeat_id:
        return sentence
    return (
        f"{sentence.rstrip('.')}. {tool} may have run, and may have been paid for: "
        f'call again with request_id="{repeat_id}" to get its result, if there is one'
    )


def _rich_status(error: grpc.RpcError) -> status_pb2.Status:
    # A proxy may cut or rewrite trailers. The status itself still counts, so unreadable details are as good as none.
    try:
        return rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status()
    except (ValueError, DecodeError):
        return status_pb2.Status()


def _detail(status: status_pb2.Status, empty: _Detail) -> _Detail:
    """The detail of the type of ``empty``, which is returned as it came if there is none."""
    for packed in status.details:
        try:
            if packed.Unpack(empty):
                break
        except DecodeError:
            empty.Clear()
    return empty


def _is_unsent(code: grpc.StatusCode, message: str) -> bool:
    return code is grpc.StatusCode.UNAVAILABLE and message.startswith(_UNSENT)


def _explanation(code: grpc.StatusCode, message: str, target: str, tls: bool, timeout: float) -> str:
    """The sentence for a status that gRPC or a proxy made, which knows nothing of our way out."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {target} within {timeout:g} s: allow more time"
    if _is_unsent(code, message):
        tried = "TLS" if tls else "plaintext"
        return f"cannot reach {target}: {_remedy(message, tls)} Tried with {tried}: {message}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"no answer from {target}; the connection may be broken: {message}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} has no agenta.ai.v1.ToolService: is it the address of an agenta-ai-server? {message}"
    return f"{code.name}: {message}"


def _who_calls(target: str, credentials: str) -> str:
    if not credentials:
        return f"{target} wants to know who calls: pass api_key, token or token_provider"
    return f"{target} does not accept the credentials of {credentials}: pass valid ones"


def _remedy(message: str, tls: bool) -> str:
    if "backend unhealthy" in message:
        return "it takes no calls at the moment. Try again when it has started, or ask its operator."
    if "handshake" in message:
        return "does it speak TLS with a certificate that you trust? If it has none, choose plaintext."
    if "Socket closed" in message:
        # Also how TLS 1.3 ends for a client without a certificate that the server wants.
        wanted = "another certificate of its callers?" if tls else "TLS? Then pass tls=True."
        return f"it closes the connection. Does it want {wanted}"
    return "is agenta-ai-server running?"


def _sentence(
    message: str, violations: Sequence[FieldViolation], retry_delay: float | None, *, joint: str = "; "
) -> str:
    """The message, and what it leaves out of the details: faults that it doesn't tell, and the time to wait."""
    untold = [f"{v.field}: {v.description}" for v in violations if not _tells(message, v)]
    if retry_delay is not None and "try again in" not in message.lower():
        when = f"in {max(1, math.ceil(retry_delay))} s"
        message, said = _TRY_AGAIN.subn(rf"\1 {when}", message, count=1)
        if not said:
            untold.append(f"try again {when}")
    return joint.join([message.rstrip(".") if untold else message, *untold])


def _tells(message: str, violation: FieldViolation) -> bool:
    description = violation.description.rstrip(".")
    return violation.field in message or (description != "" and description in message)
