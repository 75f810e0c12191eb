"""Reads the requests of tool calls, and large ones so that other calls don't wait."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.rpc.backlog import Backlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.rpc.handler import Request

    Read = Callable[[bytes, Call], ToolCall]

Result = TypeVar("Result")

# Requests of at most 1 MiB that are being received or wait to be read.
MAX_PER_CALLER = 32
MAX_TOTAL = 256
# Requests that are larger, or hold more values, take more than about a millisecond to read. Few prompts are so large.
LARGE_BYTES = 1 << 14
MANY_VALUES = 500


class RequestReader:
    """Reads large requests for one caller after the other, with pauses for other calls.

    Reading comes before the rate limit, so it costs the caller nothing; a large request takes up to 40 ms.

    Args:
        max_waiting: How many requests of one caller may wait to be received.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._backlog = Backlog(MAX_PER_CALLER, MAX_TOTAL)
        self._reading = PacedWork()

    async def read(self, read: Read, request: Request, call: Call) -> ToolCall:
        """Return the tool call of a request.

        Raises:
            Refused: DEADLINE_TOO_SHORT, OVERLOADED, or what refused the request.
        """
        caller = call.caller.key
        if not self._backlog.try_enter(caller):
            if self._backlog.waiting(caller) >= self._max_waiting:
                raise _too_many()
            async with request.until_stop():
                await _in_time(self._backlog.enter(caller), call)
        try:
            data = await request.read()
            if tool_call := read_at_once(read, data, call):
                return tool_call
            steps = _reading(read, data, call)
            del data  # the steps keep it for as long as they need it
            return await _in_time(self._reading.run(caller, steps), call)
        finally:
            self._backlog.leave(caller)


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
        "The call's deadline passed while its request waited to be read. Nothing was billed. Send fewer requests at "
        "the same time."
    )
    raise Refused(Reason.DEADLINE_TOO_SHORT, message)


def _too_many() -> Refused:
    delay = random.uniform(1, 2)  # noqa: S311  # spread, not secret
    message = f"Too many of your requests are waiting to be read. Try again in {delay:.1f} seconds."
    return Refused(Reason.OVERLOADED, message, retry_delay=delay)


def read_at_once(read: Read, data: bytes, call: Call) -> ToolCall | None:
    """Return the tool call of a request, or ``None`` if it is large, or holds many values or invalid ones.

    The arguments of a small request are read later.

    Raises:
        Refused: As ``read`` does.
    """
    if len(data) > LARGE_BYTES:
        return None
    tool_call = read(data, call)
    # A value has two bytes at least.
    is_read = len(data) <= 2 * MANY_VALUES or tool_call.lazy_arguments.load_few(MANY_VALUES)
    return tool_call if is_read else None


def _reading(read: Read, data: bytes, call: Call) -> Generator[None, None, ToolCall]:
    """Make the tool call of a large request in steps: parse it, read its arguments, hash them."""
    tool_call = read(data, call)
    del data
    yield
    try:
        tool_call.lazy_arguments.load()
    except Refused:
        # Another refusal may come first in the pipeline. Otherwise it is refused there for its arguments.
        return tool_call
    if tool_call.request_id:
        yield
        tool_call.fingerprint()
    return tool_call
