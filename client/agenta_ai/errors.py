"""The ways in which a call can fail.

Three classes, because callers must be able to distinguish three cases: :class:`InvalidInput` was never sent,
:class:`CallFailed` is a status other than OK, and :class:`ToolFailed` means that the tool ran and failed.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from agenta_ai.meta import CallMeta
from agenta_ai.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from agenta_ai.meta import FieldViolation, Metadata

CLOSED = "The client is closed. Nothing was sent. Create a new client."
CANCELLED_PROVIDER = "token_provider was cancelled. Protect a task that several calls await with asyncio.shield."

_TRY_AGAIN = re.compile(r"\b(try again)(?: later\b|(?=[.;,]|$))", re.IGNORECASE)


class AgentaError(Exception):
    """Every error of this client. Raised directly if a response can't be read or the client is closed.

    Attributes:
        request_id: The idempotency key of the call. Calling again with it and the same arguments gets the result of
            this call, if there is one. Empty if the call has none.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
    """

    request_id = ""
    call_id = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Otherwise a copy, or one for another process, is made of the message alone, without the keyword arguments.
        return _restored, (type(self), self.args, self.__dict__)


class InvalidInput(AgentaError, ValueError):
    """An argument can't be used. Nothing was sent."""


class CallFailed(AgentaError):
    """The call ended with a status other than OK. ``str()`` says what happened and what to do.

    Attributes:
        code: The status.
        reason: Name of the contract's ``ErrorReason`` without its prefix, for example ``"RATE_LIMITED"``. Empty if the
            status isn't from the service itself.
        message: The status's own text.
        field_violations: The invalid fields of the request, if that is the reason.
        retry_delay: Seconds to wait before another attempt; ``None`` if unknown.
        request_id: The idempotency key that was sent. If the outcome is unknown, calling again with it gets the result.
            Empty if no tool was called.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
        tool_was_run: ``False`` if the tool certainly wasn't run; ``None`` if the outcome is unknown.
        trailers: The metadata at the end of the call.
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
        call_id: str = "",
        tool_was_run: bool | None = None,
        trailers: Metadata = (),
    ) -> None:
        super().__init__(printable(sentence))
        self.code = code
        self.reason = reason
        self.message = message
        self.field_violations = tuple(field_violations)
        self.retry_delay = retry_delay
        self.request_id = request_id
        self.call_id = call_id
        self.tool_was_run = tool_was_run
        self.trailers = trailers

    def __repr__(self) -> str:
        return _repr(self, f"code={self.code.name}")


class ToolFailed(AgentaError):
    """The tool ran and failed. ``str()`` says what happened and what to do.

    Attributes:
        reason: Name of the contract's ``ErrorReason`` without its prefix, for example ``"UPSTREAM_TIMEOUT"``; the
            number, as text, of one that this version doesn't know.
        message: What the tool said.
        retryable: Whether the same call with the same request_id may succeed later. True only if nothing was billed.
        retry_delay: Seconds to wait before that; ``None`` if unknown.
        field_violations: The rules that the tool's answer broke, if that is the reason.
        meta: How the result was produced.
        trace_id: ``meta.trace_id``.
        request_id: The idempotency key of the call.
        call_id: The server's own id of the call, for its operator's logs.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        meta: CallMeta | None = None,
        retryable: bool = False,
        retry_delay: float | None = None,
        field_violations: Sequence[FieldViolation] = (),
        request_id: str = "",
        call_id: str = "",
    ) -> None:
        super().__init__(printable(sentence(message or "The tool failed.", field_violations, retry_delay)))
        self.message = message
        self.reason = reason
        self.meta = meta or CallMeta()
        self.trace_id = self.meta.trace_id
        self.retryable = retryable
        self.retry_delay = retry_delay
        self.field_violations = tuple(field_violations)
        self.request_id = request_id
        self.call_id = call_id

    def __repr__(self) -> str:
        return _repr(self, f"retryable={self.retryable}")


def sentence(message: str, violations: Sequence[FieldViolation] = (), retry_delay: float | None = None) -> str:
    """Return the message, completed with the violations and the retry delay that it doesn't mention.

    The clients of all languages follow the same rule: tests/conformance/sentences.json.
    """
    untold = [f"{v.field}: {v.description}" if v.field else v.description for v in _untold(message, violations)]
    if retry_delay and "try again in" not in message.lower():
        when = f"in {math.ceil(retry_delay)} s"
        message, said = _TRY_AGAIN.subn(rf"\1 {when}", message, count=1)
        if not said:
            untold.append(f"try again {when}")
    *parts, last = [message, *untold]
    return "; ".join([*(part.rstrip(".") for part in parts), last])


def _untold(message: str, violations: Sequence[FieldViolation]) -> list[FieldViolation]:
    """Return the violations that the message doesn't mention."""
    untold = []
    for violation in violations:
        names = 0
        if violation.field and violation.field in message:  # looked for first, since an expression takes much longer
            # A whole name: "arguments.text" isn't "arguments.text_format", and not "arguments.text[3]" either.
            name = rf"(?<![\w.]){re.escape(violation.field)}(?!\w|\.\w|\[)"
            message, names = re.subn(name, " ", message, count=1)
        description = violation.description.rstrip(".")
        is_described = bool(description) and description in message
        if is_described:
            message = message.replace(description, " ", 1)
        if not names and not is_described:
            untold.append(violation)
    return untold


def _restored(kind: type[AgentaError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AgentaError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def _repr(error: CallFailed | ToolFailed, first: str) -> str:
    known = {"reason": error.reason, "request_id": error.request_id, "call_id": error.call_id}
    shown = [first, *(f"{name}={value!r}" for name, value in known.items() if value)]
    return f"{type(error).__name__}({str(error)!r}, {', '.join(shown)})"
