"""The outermost interceptor: bytes become a call, and domain errors become a status.

Nothing behind it sees grpc's context, and nothing behind it answers with a status: it raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from agenta_ai_server.domain.call import Call
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.rpc.interceptor import is_call
from agenta_ai_server.rpc.status import BUG, Answer, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from agenta_ai_server.rpc.interceptor import Continuation, Handler

MAX_REQUEST_BYTES = 1 << 20
# What grpc calls a certificate's URIs and DNS names, and whether such a name has a colon.
CERTIFICATE_NAMES = {"peer_uri": True, "peer_dns": False}

Result = TypeVar("Result")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = logging.getLogger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Must be the first interceptor of the server.

    Args:
        max_seconds: What a call may take at most, and does if its caller sets no deadline.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is running."""
        await self._idle.wait()

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the chain. Called by grpc for each call."""
        handler = await continuation(details)
        if not is_call(handler, details):
            return handler
        proceed: Any = handler.unary_unary
        deserializer: Any = handler.request_deserializer

        async def run(data: bytes, context: Context) -> Message:
            self._count(context)
            call = open_call(details.method, context, self._max_seconds)

            async def work() -> Message:
                response: Message = await proceed(_parse(data, deserializer), call)
                return response

            response = await or_status(work(), call, context)
            context.set_trailing_metadata(tuple(call.trailers))
            return response

        # Without a deserializer grpc hands over the bytes. Parsing them itself, it would answer unreadable ones with
        # UNKNOWN and the exception's text.
        return grpc.unary_unary_rpc_method_handler(run, None, handler.response_serializer)

    def _count(self, context: Context) -> None:
        self._in_flight += 1
        self._idle.clear()
        # Called when the answer has left, not when it has been made.
        context.add_done_callback(cast("Any", self._uncount))

    def _uncount(self, _context: Any) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


async def or_status(work: Awaitable[Result], call: Call, context: Context) -> Result:
    """Return what ``work`` returns; if it raises, end the call with the status that this means."""
    try:
        return await work
    except Refused as refused:
        answer = refusal(refused, call)
    except Exception as error:
        _log_bug(error, call)
        answer = Answer(*BUG, call)
    # Outside the handlers, since it raises.
    await context.abort(answer.code, answer.message, answer.trailers)
    raise AssertionError("abort returned")


def open_call(method: str, context: Context, max_seconds: float = math.inf) -> Call:
    """Return what grpc's ``context`` knows of a call, which ends after ``max_seconds`` at the latest."""
    remaining = context.time_remaining()
    seconds = max_seconds if remaining is None else min(remaining, max_seconds)
    return Call(
        id=uuid4().hex,
        method=method,
        metadata=tuple(context.invocation_metadata() or ()),
        peer=context.peer(),
        deadline=asyncio.get_running_loop().time() + seconds,
        identities=_identities(context.auth_context()),
    )


def _identities(connection: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    return tuple(
        name.decode(errors="backslashreplace")
        for kind, has_colon in CERTIFICATE_NAMES.items()
        for name in connection.get(kind, ())
        # An authority that looks at DNS names only would otherwise let a URI pass for one.
        if (b":" in name) is has_colon
    )


def _parse(data: bytes, deserializer: Callable[[bytes], Message]) -> Message:
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"The request has {len(data):,} bytes, and {MAX_REQUEST_BYTES:,} are allowed: send a smaller one.",
        )
    try:
        return deserializer(data)
    except DecodeError:
        raise Refused(
            Reason.REQUEST_MALFORMED,
            "The request can't be read as this method's message: generate the client from the contract, and nest "
            "arguments at most 32 levels deep.",
        ) from None


def _log_bug(error: Exception, call: Call) -> None:
    # Where it happened, without the exception's own text: that may quote a prompt or a credential.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("call %s to %s ended by a bug: %s\n%s", call.id, call.method, type(error).__name__, frames)
