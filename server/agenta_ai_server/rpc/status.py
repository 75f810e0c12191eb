"""The status table: the code and the details for each reason to refuse a call.

If a tool ran and failed, the status is OK: ``agenta/failures.py`` decides the reason, and ``rpc/responses.py`` writes
it into the response.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.errors import ExceededQuota, Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message

    from agenta_ai_server.domain.call import Call

SERVICE = tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"].full_name
DOMAIN = "agenta.ai"
REASON_PREFIX = "ERROR_REASON_"
DETAILS_KEY = "grpc-status-details-bin"

# Together these keep the details below 8 KiB. Beyond 16 KiB of metadata the caller gets a misleading
# RESOURCE_EXHAUSTED, and no details at all.
MAX_MESSAGE_BYTES = 512
MAX_FIELD_BYTES = 128
MAX_DESCRIPTION_BYTES = 320
MAX_VIOLATIONS = 10

CODES = {
    Reason.SERVICE_DISABLED: grpc.StatusCode.UNAVAILABLE,
    Reason.CREDENTIALS_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.CREDENTIALS_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.AUTHORITY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.TOOL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.REQUEST_MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.ARGUMENTS_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    Reason.UPSTREAM_CIRCUIT_OPEN: grpc.StatusCode.UNAVAILABLE,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ABORTED,
    Reason.DEADLINE_TOO_SHORT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.REPLAY_STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class GrpcStatus:
    """A status for grpc.

    Args:
        code: Its code, not OK.
        message: Its text; a long one is cut, and control characters are escaped.
        call: The call that it answers.
        details: ``google.rpc`` messages besides the RequestInfo that every answer has.
        reason: Name of the ``Reason``, if there is one.
        trailers: Metadata besides the call's own.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        call: Call,
        *details: Message,
        reason: str = "",
        trailers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.code = code
        self.reason = reason
        self.message = _cut(message, MAX_MESSAGE_BYTES)
        number: int = code.value[0]
        status = status_pb2.Status(code=number, message=self.message)
        for detail in (*details, details_pb2.RequestInfo(request_id=call.id)):
            packed = PackedDetail()
            packed.Pack(detail)
            status.details.append(packed)
        self.trailers = ((DETAILS_KEY, status.SerializeToString()), *call.response_metadata, *trailers)


def refusal(refused: Refused, call: Call) -> GrpcStatus:
    """Return the status of a refused ``call``."""
    return GrpcStatus(
        CODES[refused.reason],
        refused.message,
        call,
        *_details(refused),
        reason=refused.reason,
        trailers=_retry_trailers(refused, call),
    )


def internal_error(call: Call) -> GrpcStatus:
    """Return the status of a ``call`` that a bug ended.

    It has no ErrorInfo, because that would promise that the tool was not run.
    """
    message = "Internal error. The server's log has the details under the request id in RequestInfo."
    return GrpcStatus(grpc.StatusCode.INTERNAL, message, call)


def deadline_passed(call: Call) -> GrpcStatus:
    """Return the status of a ``call`` that exceeded its deadline; without an ErrorInfo, as for a bug."""
    message = "The call took longer than the server allows. The tool may have run, and the call may have been billed."
    return GrpcStatus(grpc.StatusCode.DEADLINE_EXCEEDED, message, call)


def responses_unread(call: Call) -> GrpcStatus:
    """Return the status of a ``call`` whose response was dropped; without an ErrorInfo, because the tool has run."""
    message = (
        "You have left too many responses unread. Read them, then send the call again with the same request_id to "
        "get its result. Without a request_id, the result is lost."
    )
    return GrpcStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, message, call)


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    message: str,
    trailers: Iterable[tuple[str, str | bytes]] = (),
) -> None:
    """End a call with a status. Its handler must return right afterwards: grpc raises the ``AbortError`` once more.

    It is caught here because its traceback leads to our frames, and those to grpc's call, which keeps the error: a
    cycle that only a garbage collection would free.
    """
    try:
        await context.abort(code, message, tuple(trailers))
    except grpc.aio.AbortError as error:
        error.__traceback__ = None


def _details(refused: Refused) -> Iterator[Message]:
    yield details_pb2.ErrorInfo(reason=REASON_PREFIX + refused.reason, domain=DOMAIN)
    if refused.violations:
        yield details_pb2.BadRequest(
            field_violations=[
                details_pb2.BadRequest.FieldViolation(
                    field=_cut(v.field, MAX_FIELD_BYTES), description=_cut(v.description, MAX_DESCRIPTION_BYTES)
                )
                for v in refused.violations[:MAX_VIOLATIONS]
            ]
        )
    if refused.quota:
        yield details_pb2.QuotaFailure(violations=[_exceeded(refused.quota)])
    if refused.resource:
        yield details_pb2.ResourceInfo(resource_type="tool", resource_name=_cut(refused.resource, MAX_FIELD_BYTES))
    if refused.retry_delay is not None:
        yield details_pb2.RetryInfo(retry_delay=to_duration(refused.retry_delay))


def _exceeded(quota: ExceededQuota) -> details_pb2.QuotaFailure.Violation:
    return details_pb2.QuotaFailure.Violation(
        subject=quota.subject,
        description=quota.description,
        api_service=SERVICE,
        quota_id=quota.id,
        quota_value=quota.value,
    )


def _retry_trailers(refused: Refused, call: Call) -> Iterator[tuple[str, str]]:
    """Yield the retry delay as the metadata that grpc's clients and HTTP clients obey automatically."""
    delay = refused.retry_delay
    if delay is not None:
        yield "retry-after", str(math.ceil(delay))
    # A client that waits in vain reports a deadline to its caller, and not the reason for the wait.
    in_vain = delay is not None and delay >= call.deadline - asyncio.get_running_loop().time()
    if in_vain or refused.reason is Reason.SERVICE_DISABLED:
        yield "grpc-retry-pushback-ms", "-1"
    elif delay is not None:
        yield "grpc-retry-pushback-ms", str(math.ceil(delay * 1000))


def to_duration(seconds: float) -> Duration:
    """Return ``seconds``, at least 0, as a message; rounded up to whole milliseconds so that it reads well."""
    whole, milliseconds = divmod(math.ceil(seconds * 1000), 1000)
    return Duration(seconds=whole, nanos=milliseconds * 1_000_000)


def _cut(text: str, most: int) -> str:
    """Return ``text`` in at most ``most`` bytes of UTF-8, and without what could control a terminal."""
    # First, because to escape a megabyte takes a second. A character has at least one byte, escaped or not.
    text = text[: most + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    data = text.encode()
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"
