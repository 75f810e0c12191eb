"""The interface through which metrics, traces and logs observe calls and their requests to the completion service."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agenta_ai_server.domain.call import CURRENT_CALL, UpstreamRequest
from agenta_ai_server.domain.errors import UpstreamFailed
from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from agenta_ai_server.domain.call import Call


@record
class CallOutcome:
    """How a call ended.

    Attributes:
        code: Name of its gRPC status, ``"OK"``.
        seconds: From its arrival to its response.
        reason: Name of the ``Reason`` for which it was refused or failed; empty for a success, a bug, a passed deadline
            and a cancelled call.
        response_bytes: Size of the response's message; 0 if there is none.
        replayed: Whether the result is the stored one of an earlier call.
        repaired: Whether the model was asked again, with success, because its first answer broke a rule.
    """

    code: str
    seconds: float
    reason: str = ""
    response_bytes: int = 0
    replayed: bool = False
    repaired: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the call succeeded."""
        return self.code == "OK" and not self.reason


class CallListener:
    """Observes calls and their requests to the completion service. The base class ignores them.

    Its methods run in the task, and so in the context, of the call or request. They must be quick and must not raise.
    """

    def call_began(self, call: Call) -> None:
        """A call has arrived; its caller and content aren't known yet."""

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        """A call has ended, and its response is about to be sent. Called exactly once for each call that began."""

    def call_expired(self, method: str, tool: str) -> None:
        """A call's deadline passed before the call could begin. The other two aren't called for it.

        Args:
            method: Its full method name.
            tool: The label of its tool; empty if its method calls none.
        """

    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        """A request to the completion service is about to be sent, for ``call`` if it is known for which."""

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        """The request has ended, well or badly. Its call may have ended before."""


class CallListeners(CallListener):
    """Calls several listeners, in the order given."""

    def __init__(self, listeners: Iterable[CallListener]) -> None:
        self._listeners = tuple(listeners)

    def call_began(self, call: Call) -> None:
        for listener in self._listeners:
            listener.call_began(call)

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        for listener in self._listeners:
            listener.call_ended(call, outcome)

    def call_expired(self, method: str, tool: str) -> None:
        for listener in self._listeners:
            listener.call_expired(method, tool)

    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        for listener in self._listeners:
            listener.request_began(request, call)

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        for listener in self._listeners:
            listener.request_ended(request, call)


class RequestRecord:
    """Notifies a listener of a request of the current call, which begins and ends with the context.

    Args:
        url: Where the request goes.
        listener: Is notified.
        resends: How often the same request was sent before.
    """

    __slots__ = ("_call", "_listener", "_request")

    def __init__(self, url: str, listener: CallListener, resends: int = 0) -> None:
        self._request = UpstreamRequest(url, resends=resends)
        self._listener = listener
        self._call = CURRENT_CALL.get()

    def __enter__(self) -> UpstreamRequest:
        """Begin, and return what is to be filled in."""
        request, call = self._request, self._call
        self._listener.request_began(request, call)
        if call:
            call.requests.append(request)
        # The time of the listeners isn't the completion service's.
        request.began = time.perf_counter()
        return request

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End with the outcome that the error shows. The error is raised all the same."""
        request = self._request
        if error is None:
            request.outcome = "OK"
        elif isinstance(error, UpstreamFailed):
            request.outcome = error.reason
            request.attempt = error.attempts[0]
            request.explanation = error.explanation
        else:
            request.outcome = "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
        request.ended = time.perf_counter()
        self._listener.request_ended(request, self._call)
