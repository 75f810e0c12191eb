"""The contract's methods behind the boundary: they take a ``Request`` and a ``Call``, and return a ``Response``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.record import record
from agenta_ai_server.rpc.arrivals import Arrivals
from agenta_ai_server.rpc.messages import MAX_READ_SECONDS, receive

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.outcome import ToolOutcome, Write
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.rpc.progress import Encode

    Handler = grpc.RpcMethodHandler[bytes, bytes]
else:
    Handler = grpc.RpcMethodHandler

GrpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
"""The handler that grpc's interceptors pass on; ``None`` for an unknown method."""
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[GrpcHandler]]


@record
class Response:
    """The response of a method.

    Attributes:
        message: The serialized response.
        outcome: The outcome of the tool, if one was called.
    """

    message: bytes
    outcome: ToolOutcome | None = None


class Request:
    """The request of one call, not yet read.

    Args:
        read: Waits for its message.
        call: The call, which records the size of the message.
        arrivals: Refuses calls that still wait when the server stops.
    """

    __slots__ = ("_arrivals", "_call", "_read")

    def __init__(self, read: Callable[[], Awaitable[bytes]], call: Call, arrivals: Arrivals | None = None) -> None:
        self._read = read
        self._call = call
        self._arrivals = Arrivals() if arrivals is None else arrivals

    def until_stop(self) -> AbstractAsyncContextManager[None]:
        """End what waits within when the server stops: see :class:`~agenta_ai_server.rpc.arrivals.Arrivals`."""
        return self._arrivals.until_stop()

    async def read(self) -> bytes:
        """Return the message's bytes. Nothing else holds them: a waiting call must not keep them in memory.

        Raises:
            Refused: DEADLINE_TOO_SHORT, if it takes too long to arrive. The part that has arrived takes memory, and the
                caller may have set no deadline. OVERLOADED, if the server stops before.
        """
        async with self.until_stop():
            data = await receive(self._read)
        if data is None:
            message = (
                f"The request hasn't arrived within {MAX_READ_SECONDS:g} seconds. Nothing was billed. Send it again, "
                "over a faster connection."
            )
            raise Refused(Reason.DEADLINE_TOO_SHORT, message)
        self._call.request_bytes = len(data)
        return data


Respond: TypeAlias = "Callable[[Request, Call], Awaitable[Response]]"


class CallHandler(Handler):
    """A method of the contract. The interceptors behind the boundary wrap it; others, such as health, they pass on.

    Args:
        respond: Returns the response to a request. Raises ``Refused`` or ``DeadlinePassed``.
        calls_tool: Whether it calls a tool.
        write_progress: Makes a message of a tool's progress; ``None`` for a method that answers once.
        recorded_as: Name in logs and traces of a handler for methods of any name; empty for the handler of a single
            method, which is recorded by the method's own name.
    """

    def __init__(
        self,
        respond: Respond,
        *,
        calls_tool: bool = False,
        write_progress: Encode | None = None,
        recorded_as: str = "",
    ) -> None:
        self.respond = respond
        self.calls_tool = calls_tool
        self.write_progress = write_progress
        self.recorded_as = recorded_as

    def replace(self, respond: Respond) -> CallHandler:
        """Return the same method with another ``respond``, as a rule one that awaits this one's."""
        return CallHandler(
            respond,
            calls_tool=self.calls_tool,
            write_progress=self.write_progress,
            recorded_as=self.recorded_as,
        )


class ToolHandler(Handler):
    """A method that calls a tool, in two halves. With the pipeline between them, it becomes a :class:`CallHandler`.

    Args:
        read: Makes the tool call from a request; raises ``Refused``.
        write: Makes the response from an outcome; the last one, for a method that also reports progress.
        write_progress: Makes a response of a progress; ``None`` for a method that answers once.
        recorded_as: As for :class:`CallHandler`.
    """

    def __init__(
        self,
        read: Callable[[bytes, Call], ToolCall],
        write: Write,
        write_progress: Encode | None = None,
        *,
        recorded_as: str = "",
    ) -> None:
        self.read = read
        self.write = write
        self.write_progress = write_progress
        self.recorded_as = recorded_as
