"""The outermost interceptor: bytes become a call, and domain errors become a status.

Nothing behind it sees grpc's context, and nothing behind it answers with a status: it raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from agenta_ai.v1 import error_pb2, tool_service_pb2
from agenta_ai_server.domain.call import Call
from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.domain.listener import CURRENT_CALL, CallListener, CallOutcome
from agenta_ai_server.rpc.interceptor import is_tool_method
from agenta_ai_server.rpc.status import BUG, REASON_PREFIX, Answer, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from google.protobuf.message import Message

    from agenta_ai_server.rpc.interceptor import Continuation, Handler

# What grpc calls a certificate's URIs and DNS names, and whether such a name has a colon.
CERTIFICATE_NAMES = {"peer_uri": True, "peer_dns": False}
CALL_ID_KEY = "x-request-id"
# A caller may tell us that its deadline has passed before our own clock does: on their way deadlines are rounded up, by
# at most a hundredth.
ROUNDING, LATENCY_SECONDS = 0.01, 0.02
# Whatever callers send as a tool's name must not become a label or a line in a log.
UNKNOWN_TOOL = "unknown"

Result = TypeVar("Result")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = logging.getLogger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Must be the first interceptor of the server.

    Args:
        max_seconds: What a call may take at most, and does if its caller sets no deadline.
        listener: Is told of each call.
    """

    def __init__(self, max_seconds: float, listener: CallListener | None = None) -> None:
        self._max_seconds = max_seconds
        self._listener = listener or CallListener()
        self._handlers: dict[str, Handler] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is running."""
        await self._idle.wait()

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the chain. Called by grpc for each call, while the chain is the same for all calls of a method."""
        if known := self._handlers.get(details.method):
            return known
        handler = await continuation(details)
        if not is_tool_method(handler, details):
            return handler
        wrapped = self._handlers[details.method] = self._wrapped(handler.unary_unary, details.method)
        return wrapped

    def _wrapped(self, proceed: Any, method: str) -> Handler:
        async def run(data: bytes, context: Context) -> bytes:
            self._count(context)
            call = open_call(method, context, self._max_seconds)
            call.request_bytes = len(data)

            async def work() -> tuple[Message, bytes]:
                self._listener.call_began(call)
                call.tool = UNKNOWN_TOOL if call.rpc == "CallTool" else ""
                response: Message = await proceed(data, call)
                return response, response.SerializeToString()

            return await self._answer(work(), call, context)

        # Without a deserializer grpc hands over the bytes. Parsing them itself, it would answer unreadable ones with
        # UNKNOWN and the exception's text, and would do so before anybody has asked who calls. Without a serializer it
        # sends the bytes that it is given.
        return grpc.unary_unary_rpc_method_handler(run)

    async def _answer(self, work: Awaitable[tuple[Message, bytes]], call: Call, context: Context) -> bytes:
        """Return the answer to the ``call``, or end it with a status; tell the listener of either."""
        CURRENT_CALL.set(call)
        began = time.perf_counter()
        allowed = context.time_remaining()
        try:
            answer = await run_or_status(work, call)
        except asyncio.CancelledError:
            code = _code_of_cancellation(allowed, context.time_remaining())
            self._listener.call_ended(call, CallOutcome(code=code, seconds=time.perf_counter() - began))
            raise
        if isinstance(answer, Answer):
            seconds = time.perf_counter() - began
            self._listener.call_ended(call, CallOutcome(code=answer.code.name, reason=answer.reason, seconds=seconds))
            await abort(answer, context)
        response, data = answer
        self._listener.call_ended(call, _ending(response, len(data), time.perf_counter() - began))
        # A tool that failed is answered with OK, which has no place for a RequestInfo.
        context.set_trailing_metadata(((CALL_ID_KEY, call.id), *call.trailers))
        return data

    def _count(self, context: Context) -> None:
        self._in_flight += 1
        self._idle.clear()
        # Called when the answer has left, not when it has been made.
        context.add_done_callback(cast("Any", self._uncount))

    def _uncount(self, _context: Any) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


async def run_or_status(work: Awaitable[Result], call: Call) -> Result | Answer:
    """Return what ``work`` returns; if it raises, the status that this means."""
    try:
        return await work
    except Refused as refused:
        return refusal(refused, call)
    except Exception as error:
        _log_bug(error, call)
        return Answer(*BUG, call)


async def abort(answer: Answer, context: Context) -> NoReturn:
    """End a call with a status. Must not be called within a handler of ``Exception``, since it raises one."""
    await context.abort(answer.code, answer.message, answer.trailers)
    raise AssertionError("abort returned")


async def authenticate_or_abort(
    identify: Callable[[Call], Awaitable[None]], method: str, context: Context, listener: CallListener | None
) -> None:
    """End a call that isn't one of the contract's unless ``identify`` knows its caller; tell the listener if so."""
    call = open_call(method, context)
    if refused := await run_or_status(identify(call), call):
        if listener:
            listener.call_ended(call, CallOutcome(code=refused.code.name, reason=refused.reason, seconds=0))
        await abort(refused, context)


def open_call(method: str, context: Context, max_seconds: float = math.inf) -> Call:
    """Return what grpc's ``context`` knows of a call, which ends after ``max_seconds`` at the latest."""
    remaining = context.time_remaining()
    seconds = max_seconds if remaining is None else min(remaining, max_seconds)
    return Call(
        id=secrets.token_hex(16),
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


def _ending(response: Message, size: int, seconds: float) -> CallOutcome:
    if not isinstance(response, tool_service_pb2.CallToolResponse):
        return CallOutcome(code="OK", seconds=seconds, response_bytes=size)
    failed = response.is_error
    return CallOutcome(
        code="OK",
        reason=error_pb2.ErrorReason.Name(response.error.reason).removeprefix(REASON_PREFIX) if failed else "",
        seconds=seconds,
        response_bytes=size,
        replayed=response.meta.replayed,
        repaired=response.meta.repaired,
    )


def _code_of_cancellation(allowed: float | None, remaining: float | None) -> str:
    """Return why grpc cancelled a call which was allowed so many seconds and has so many left; ``None`` for no end."""
    if allowed is None or remaining is None or remaining > allowed * ROUNDING + LATENCY_SECONDS:
        return "CANCELLED"
    return "DEADLINE_EXCEEDED"


def _log_bug(error: Exception, call: Call) -> None:
    # Where it happened, without the exception's own text: that may quote a prompt or a credential.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("call %s to %s ended by a bug: %s\n%s", call.id, call.method, type(error).__name__, frames)
