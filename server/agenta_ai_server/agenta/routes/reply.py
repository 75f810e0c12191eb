"""A run and Agenta's reply, in a form that is the same for every route."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.domain.values import Json

_TRACE_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.IGNORECASE)


@record
class PromptRun:
    """A prompt to run, and the values of its variables.

    Attributes:
        app: Slug of the application.
        environment: Slug of the environment that it is deployed to.
        inputs: The variables; of a chat application also its ``messages``.
        parameters: The prompt itself, if it isn't deployed; application and environment are empty then.
    """

    app: str
    environment: str
    inputs: Mapping[str, Json]
    parameters: Mapping[str, Json] | None = None

    @property
    def is_inline(self) -> bool:
        """Whether the prompt is the caller's own, and not one that is deployed."""
        return self.parameters is not None


@dataclass(frozen=True, slots=True)
class AgentaStatus:
    """How Agenta itself says that a run failed. The texts hold internal addresses, and must not reach a caller.

    Attributes:
        message: A sentence, maybe long.
        type: URL of the kind of error.
    """

    message: str
    type: str


@record
class Reply:
    """A response, read.

    Attributes:
        http_status: The HTTP status.
        is_complete: Whether its whole body was read: it is no larger than allowed, and has no more values.
        is_plain: Whether its body is uncompressed.
        is_from_agenta: Whether it has the form that Agenta's responses have, unlike a proxy's page.
        has_output: Whether it holds the place where a model's text is.
        output: What is there.
        trace_id: Trace of the run in Agenta, 32 lowercase hexadecimal digits; empty if nothing ran, or it isn't known.
        span_id: The root span of that trace, 16 digits, likewise.
        failed: How Agenta says that it failed, if it does.
        retry_after: The header ``Retry-After``, if there is one.
    """

    http_status: int
    is_complete: bool
    is_plain: bool
    is_from_agenta: bool
    has_output: bool
    output: Any
    trace_id: str
    span_id: str
    failed: AgentaStatus | None
    retry_after: str | None


def encoded(document: Mapping[str, object]) -> bytes:
    """Return the document as JSON."""
    # As ASCII, for its escapes carry every string; UTF-8 has no bytes for half of a surrogate pair.
    return json.dumps(document).encode("ascii")


def parsed(response: HttpResponse) -> dict[str, Any]:
    """Return the body as a JSON object; an empty one if it isn't one."""
    try:
        document = json.loads(response.body or b"")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def reply(response: HttpResponse, document: dict[str, Any], *, has_output: bool, output: Any) -> Reply:
    """Return what all routes have in common, and the output that one of them has found."""
    trace_id = _trace_id(document.get("trace_id"), document.get("traceId"))
    trace_id = trace_id or _trace_id(response.headers.get("x-ag-trace-id"))
    span = document.get("span_id")
    failed = _status(document.get("status"))
    return Reply(
        http_status=response.status,
        is_complete=response.body is not None,
        is_plain=response.headers.get("content-encoding", "identity").strip().lower() == "identity",
        is_from_agenta=bool(failed or trace_id or has_output or "detail" in document),
        has_output=has_output,
        output=output,
        trace_id=trace_id,
        span_id=span.lower() if isinstance(span, str) and _SPAN_ID.fullmatch(span) else "",
        failed=failed,
        retry_after=response.headers.get("retry-after"),
    )


def text_of(output: Any) -> Any:
    """Return the text of a chat application's message, or the ``output`` itself if it isn't such a message."""
    content = output.get("content") if isinstance(output, dict) else output
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type") == "text"]
        content = "".join(text for text in texts if isinstance(text, str)) or None
    return content


def _trace_id(*values: object) -> str:
    for value in values:
        if isinstance(value, str) and _TRACE_ID.fullmatch(value):
            return value.replace("-", "").lower()
    return ""


def _status(status: object) -> AgentaStatus | None:
    if not isinstance(status, dict):
        return None
    message, kind = status.get("message"), status.get("type")
    return AgentaStatus(message if isinstance(message, str) else "", kind if isinstance(kind, str) else "")
