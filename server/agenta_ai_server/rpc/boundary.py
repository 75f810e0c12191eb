"""The outermost interceptor: grpc's context becomes a ``Call``, and domain errors become a status.

Nothing behind it sees grpc's context, and nothing behind it answers with a status: it raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
import traceback
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from agenta_ai_server.domain.call import CURRENT_CALL, Call
from agenta_ai_server.domain.errors import DeadlinePassed, Refused
from agenta_ai_server.domain.listener import CallListener, CallOutcome
from agenta_ai_server.rpc import metadata
from agenta_ai_server.rpc.arrivals import Arrivals
from agenta_ai_server.rpc.handler import CallHandler, Request, Response
from agenta_ai_server.rpc.open_calls import OpenCalls, when_sent
from agenta_ai_server.rpc.peer_identity import identities
from agenta_ai_server.rpc.progress import Encode, ProgressSender
from agenta_ai_server.rpc.status import GrpcStatus, abort, deadline_passed, internal_error, refusal, responses_unread
from agenta_ai_server.rpc.unsent import UnsentResponses

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agenta_ai_server.rpc.handler import Continuation, GrpcHandler, Respond
    from agenta_ai_server.rpc.messages import Context

CALL_ID_KEY = "x-request-id"
# A caller's deadline may pass before ours does, because gRPC rounds deadlines up when it sends them, by at most 1%.
ROUNDING, LATENCY_SECONDS = 0.01, 0.02
# A tool name that a caller sent must not become a label or reach the log.
UNKNOWN_TOOL = "unknown"

log = logging.getLogger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Must be the first interceptor of the server.

    Args:
        max_seconds: How far ahead ``Call.deadline`` is at most.
        listener: Is notified of each call.

    Attributes:
        open_calls: Counts its calls.
        arrivals: Those whose request hasn't arrived.
    """

    def __init__(self, max_seconds: float, listener: CallListener | None = None) -> None:
        self._max_seconds = max_seconds
        self._listener = listener or CallListener()
        self._unsent = UnsentResponses()
        self._handlers: dict[str, GrpcHandler] = {}
        self.open_calls = OpenCalls()
        self.arrivals = Arrivals()

    def forget_methods(self) -> None:
        """Discard cached methods, because those of tools may have changed."""
        self._handlers.clear()

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> GrpcHandler:
        """Make grpc's handler from one of ours. Cached by method, because grpc calls this for each call."""
        if metadata.is_too_large(details.invocation_metadata):
            return metadata.REFUSE_TOO_LARGE
        if known := self._handlers.get(details.method):
            return known
        handler = await continuation(details)
        if not isinstance(handler, CallHandler):
            return handler
        # Not cached: callers can name any number of methods that don't exist.
        if handler.recorded_as:
            return self._wrapped(handler, handler.recorded_as)
        wrapped = self._handlers[details.method] = self._wrapped(handler, details.method)
        return wrapped

    def _wrapped(self, handler: CallHandler, method: str) -> GrpcHandler:
        respond, tool = handler.respond, UNKNOWN_TOOL if handler.calls_tool else ""

        async def run(_: object, context: Context) -> bytes | None:
            return await self._handle(respond, self._begin(method, tool, context), context)

        async def stream(_: object, context: Context, encode: Encode) -> None:
            call = self._begin(method, tool, context)
            progress = ProgressSender(encode, context.write)
            call.watch = progress.report
            try:
                if message := await self._handle(respond, call, context, progress):
                    await progress.stop()
                    # If it can't be written, no one is left to read it. grpc would log it as a bug of the method.
                    with suppress(Exception):
                        await context.write(message)
            finally:
                progress.drop()

        # On the wire the request is unary. As a stream of one request, without a deserializer, its bytes are read when
        # they are needed and nothing else keeps them. grpc itself would keep them for as long as the call lasts, and
        # would answer unreadable ones with UNKNOWN and an exception's text, before the caller has been authenticated.
        if handler.write_progress:
            return grpc.stream_stream_rpc_method_handler(partial(stream, encode=handler.write_progress))
        return grpc.stream_unary_rpc_method_handler(run)

    def _begin(self, method: str, tool: str, context: Context) -> Call:
        """Return the call of grpc's ``context``, and notify the listener of it.

        Raises:
            CancelledError: The call's deadline has passed, and grpc has ended it already. It is dropped here, because
                anyone can send tens of thousands of such calls a second.
        """
        remaining = context.time_remaining()
        if remaining == 0:
            self._listener.call_expired(method, tool)
            raise asyncio.CancelledError
        self.open_calls.count_until_sent()
        call = _open_call(method, context, remaining, self._max_seconds)
        call.tool = tool
        CURRENT_CALL.set(call)
        self._listener.call_began(call)
        return call

    async def _handle(
        self, respond: Respond, call: Call, context: Context, progress: ProgressSender | None = None
    ) -> bytes | None:
        """Return the message of the response, or end the ``call`` with a status and return ``None``.

        The listener is notified of either.
        """
        began = time.perf_counter()
        try:
            with self.open_calls.running:
                result = await _run_or_status(respond(Request(context.read, call, self.arrivals), call), call)
        except asyncio.CancelledError:
            code = _code_of_cancellation(call.client_deadline - call.arrived, context.time_remaining())
            self._listener.call_ended(call, CallOutcome(code=code, seconds=time.perf_counter() - began))
            raise
        seconds = time.perf_counter() - began
        if isinstance(result, Response) and self._admit_response(result, call):
            self._listener.call_ended(call, _outcome(result, seconds))
            # A tool that failed is answered with OK, which has no place for a RequestInfo.
            context.set_trailing_metadata(((CALL_ID_KEY, call.id), *call.response_metadata))
            return result.message
        status = result if isinstance(result, GrpcStatus) else responses_unread(call)
        self._listener.call_ended(call, CallOutcome(code=status.code.name, reason=status.reason, seconds=seconds))
        if progress:
            await progress.stop()  # otherwise grpc would have two concurrent writes, and send no status
        await abort(context, status.code, status.message, status.trailers)
        return None

    def _admit_response(self, response: Response, call: Call) -> bool:
        """Count the response until it has been sent. ``False``: its caller leaves too much unread."""
        caller, size = call.caller.key, len(response.message)
        if not self._unsent.add(caller, size):
            return False
        when_sent(lambda _: self._unsent.remove(caller, size))
        return True


async def _run_or_status(work: Awaitable[Response], call: Call) -> Response | GrpcStatus:
    """Return the result of ``work``, or the status for its exception."""
    try:
        return await work
    except Refused as refused:
        return refusal(refused, call)
    except DeadlinePassed:
        return deadline_passed(call)
    except Exception as error:
        _log_bug(error, call)
        return internal_error(call)


def _open_call(method: str, context: Context, remaining: float | None, max_seconds: float) -> Call:
    """Return the call of grpc's ``context``, which ends after ``max_seconds`` at the latest."""
    now = asyncio.get_running_loop().time()
    client_deadline = math.inf if remaining is None else now + remaining
    return Call(
        id=secrets.token_hex(16),
        method=method,
        metadata=tuple(context.invocation_metadata() or ()),
        peer=context.peer(),
        arrived=now,
        client_deadline=client_deadline,
        deadline=min(client_deadline, now + max_seconds),
        identities=identities(context.auth_context()),
    )


def _outcome(response: Response, seconds: float) -> CallOutcome:
    outcome, size = response.outcome, len(response.message)
    if outcome is None:
        return CallOutcome(code="OK", seconds=seconds, response_bytes=size)
    return CallOutcome(
        code="OK",
        reason=outcome.failure.reason if outcome.failure else "",
        seconds=seconds,
        response_bytes=size,
        replayed=outcome.replayed,
        repaired=outcome.repaired,
    )


def _code_of_cancellation(allowed: float, remaining: float | None) -> str:
    """Return why grpc cancelled a call, from its allowed and its remaining seconds; ``None``: no deadline."""
    if remaining is None or remaining > allowed * ROUNDING + LATENCY_SECONDS:
        return "CANCELLED"
    return "DEADLINE_EXCEEDED"


def _log_bug(error: Exception, call: Call) -> None:
    # Where it happened, without the exception's own text: that may quote a prompt or a credential.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("call %s to %s ended by a bug: %s\n%s", call.id, call.method, type(error).__name__, frames)
