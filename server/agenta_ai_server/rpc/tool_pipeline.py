"""The one place where the pipeline of tool calls meets grpc."""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import grpc
import grpc.aio

from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.domain.errors import Reason, Refused, forget_frames
from agenta_ai_server.pipeline.idempotency import fingerprint
from agenta_ai_server.pipeline.pipeline import Pipeline
from agenta_ai_server.rpc.backlog import Backlog
from agenta_ai_server.rpc.handler import CallHandler, Response, ToolHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.tool import ToolCall
    from agenta_ai_server.pipeline.pipeline import Interceptor
    from agenta_ai_server.rpc.handler import Continuation, GrpcHandler, Request

    Read = Callable[[bytes, Call], ToolCall]

Result = TypeVar("Result")


# The bytes of large requests that wait to be read, of one caller and in all.
MAX_WAITING_OF_CALLER = 16 << 20
MAX_WAITING = 256 << 20
# Requests that are larger, or hold more values, take more than about a millisecond to read. Few prompts are so large.
LARGE_BYTES = 1 << 14
MANY_VALUES = 500


class ToolPipeline(grpc.aio.ServerInterceptor):
    """Runs each tool call through the interceptors, for every method.

    Large requests are read for one caller after the other: what precedes the rate limit costs the caller nothing, and
    takes up to forty milliseconds.

    Args:
        interceptors: In the order in which a call passes them.
    """

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self.interceptors = tuple(interceptors)
        self._pipeline = Pipeline(interceptors)
        self._backlog = Backlog(MAX_WAITING_OF_CALLER, MAX_WAITING)
        self._reading = PacedWork()

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> GrpcHandler:
        """Put the pipeline between the two halves of a method that calls a tool."""
        handler = await continuation(details)
        if not isinstance(handler, ToolHandler):
            return handler
        read, write = handler.read, handler.write

        async def respond(request: Request, call: Call) -> Response:
            data = await (self._take(request, call) if self._backlog.is_full(call.principal) else request.read())
            tool_call = read_at_once(read, data, call)
            if tool_call is None:
                steps, size = _reading(read, data, call), len(data)
                del data
                with self._backlog.holding(call.principal, size):
                    tool_call = await _in_time(self._reading.run(call.principal, steps), call)
            else:
                del data
            outcome = await self._pipeline.run(tool_call)
            return Response(write(outcome), outcome)

        return CallHandler(
            respond, calls_tool=True, write_progress=handler.write_progress, recorded_as=handler.recorded_as
        )

    async def _take(self, request: Request, call: Call) -> bytes:
        """Return the bytes of a request, when fewer requests of its caller wait to be read.

        Raises:
            Refused: DEADLINE_TOO_SHORT.
        """
        await _in_time(self._backlog.room(call.principal), call)
        try:
            return await request.read()
        finally:
            self._backlog.admit_next()


async def _in_time(work: Awaitable[Result], call: Call) -> Result:
    """Await the work, at most until the call's deadline.

    Raises:
        Refused: DEADLINE_TOO_SHORT.
    """
    timeout = asyncio.timeout_at(call.deadline)
    try:
        async with timeout:
            return await work
    except TimeoutError:
        if not timeout.expired():
            raise
    message = (
        "The call's deadline has passed while its large request was waiting for earlier ones. Nothing was billed. "
        "Send fewer large requests at the same time."
    )
    raise Refused(Reason.DEADLINE_TOO_SHORT, message)


def read_at_once(read: Read, data: bytes, call: Call) -> ToolCall | None:
    """Return the tool call of a request, or ``None`` if it takes long to read.

    Raises:
        Refused: As ``read`` does.
    """
    if len(data) > LARGE_BYTES:
        return None
    tool_call = read(data, call)
    # A value has two bytes at least.
    is_read = len(data) <= 2 * MANY_VALUES or tool_call.load_few_arguments(MANY_VALUES)
    return tool_call if is_read else None


def _reading(read: Read, data: bytes, call: Call) -> Generator[None, None, ToolCall]:
    """Make the tool call of a large request, with everything that takes long before the rate limit."""
    tool_call = read(data, call)
    del data
    yield
    try:
        tool_call.load_arguments()
    except Refused as refused:
        # In its place in the pipeline, the call is refused again, and the request isn't read again.
        forget_frames(refused)
        tool_call.read_arguments = partial(_refuse, refused)
        return tool_call
    if tool_call.request_id:
        yield
        fingerprint(tool_call)
    return tool_call


def _refuse(refused: Refused) -> NoReturn:
    # A raised error keeps the frames that it passes, and these keep the original.
    raise copy(refused)
