"""The recorded responses of Agenta's completion service, modified by faults."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from agenta_ai_server.standin.causes import CAUSES, FAILED
from agenta_ai_server.standin.refine import without_last_message, without_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai_server.standin.faults import Fault

_VERSION = "2025.07.14"
_MISSING = "https://agenta.ai/docs/misc/errors#v0:schemas:missing-parameter"
_INVALID_INPUTS = "https://agenta.ai/docs/misc/errors#v0:schemas:invalid-inputs"
_STACKTRACE = [
    "Traceback (most recent call last):\n",
    '  File "/app/sdks/python/agenta/sdk/decorators/routing.py", line 636, in invoke_endpoint\n'
    "    response = await wf.invoke(\n               ^^^^^^^^^^^^^^^^\n",
    "...shortened...",
]
_DETAILS = {
    401: "Invalid credentials. Please check your credentials or login again.",
    403: "Permission denied. Please check your permissions or contact your administrator.",
    429: "API Rate limit exceeded. Please try again later or upgrade your plan.",
    503: "Could not verify credentials: connection to http://127.0.0.1:8000 failed. "
    "Please check if agenta is available.",
}
_BY_STATUS = {400: "no-model-credential", 424: "rate-limit", 500: "provider-down"}
_TOOL_CALLS = [{"function": {"arguments": "{}", "name": "f"}, "id": "call_1", "type": "function"}]
_WRITTEN: dict[str, Callable[[str], object]] = {
    "empty": lambda _: "",
    "fenced": lambda refinement: f"```json\n{refinement}\n```",
    "fewer": without_last_message,
    "lossy": without_tags,
    "null": lambda _: None,
    "prose": lambda _: "Sure! Here is your refined prompt: be nicer.",
    "tools": lambda _: _TOOL_CALLS,
    "truncated": lambda refinement: refinement[: len(refinement) // 2],
}
_TRACE_KEYS = ("trace_id", "tree_id", "span_id", "session_id")


def _json_headers() -> dict[str, str]:
    return {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class CannedResponse:
    """An HTTP answer: its status, its headers without ``Content-Length``, and its body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=_json_headers)
    body: bytes = b""


def of_json(status: int, content: object) -> CannedResponse:
    """An answer with a body of JSON."""
    return CannedResponse(status, body=json.dumps(content, ensure_ascii=False).encode())


def plain_text(status: int, text: str) -> CannedResponse:
    """An answer with a body of plain text."""
    return CannedResponse(status, {"content-type": "text/plain; charset=utf-8"}, text.encode())


def health() -> CannedResponse:
    """The service runs."""
    return of_json(200, {"status": "ok"})


def success(data: object, trace_id: str = "", span_id: str = "") -> CannedResponse:
    """A finished run: ``data`` is the model's output, usually a text."""
    trace = UUID(trace_id) if trace_id else uuid4()
    content = {
        "version": "3.0",
        "data": data,
        "content_type": "text/plain" if isinstance(data, str) else "application/json",
        "tree": None,
        "tree_id": str(trace),
        "trace_id": trace.hex,
        "span_id": span_id or uuid4().hex[:16],
    }
    return of_json(200, content)


def invoked(data: object, trace_id: str = "", span_id: str = "") -> CannedResponse:
    """The same on the newer route. A model that declined leaves ``data`` empty."""
    ids = {
        "session_id": uuid4().hex,
        "span_id": span_id or uuid4().hex[:16],
        "trace_id": trace_id or uuid4().hex,
    }
    content = {
        **ids,
        "version": _VERSION,
        "status": {"code": 200, "message": "Success"},
        "data": {} if data is None else {"outputs": data},
    }
    headers = {f"x-ag-{name.removesuffix('_id')}-id": value for name, value in ids.items()}
    answer = of_json(200, content)
    return replace(answer, headers={**answer.headers, **headers, "x-ag-version": _VERSION})


def failure(status: int) -> CannedResponse:
    """The failure that was recorded with this status, or else one that only names it."""
    if status in _BY_STATUS:
        return cause(_BY_STATUS[status])
    return of_json(status, {"detail": _DETAILS.get(status, phrase(status))})


def cause(name: str) -> CannedResponse:
    """One of :data:`~agenta_ai_server.standin.causes.CAUSES`, as it was recorded."""
    return _failed_run(*CAUSES[name])


def missing_prompt() -> CannedResponse:
    """The request names no environment, and no application that is known."""
    return _failed_run(400, "Missing parameter:\nAt 'prompt'", _MISSING)


def missing_inputs(expected: list[str], given: list[str]) -> CannedResponse:
    """Some of the prompt's variables have no value."""
    return _failed_run(400, f"Invalid inputs:\nExpected '{expected}'\nGot ('list') '{given}'.", _INVALID_INPUTS)


def unreplaced(index: int, names: list[str]) -> CannedResponse:
    """A text of the prompt has variables without a value."""
    message = f"Error in messages[{index}].content: Unreplaced variables in curly template: {names}."
    return _failed_run(500, message, FAILED)


def no_model_credential(model: str) -> CannedResponse:
    """There is no credential for the model, or no such model."""
    status, message, kind, _ = CAUSES["no-model-credential"]
    return _failed_run(status, message.replace("gpt-4o-mini", model), kind)


def not_deployed() -> CannedResponse:
    """No such application, or not in this environment. It has no trace id: nothing ran."""
    return cause("not-deployed")


def written(refinement: str, fault: Fault) -> object:
    """The model's output: the refinement, unless the fault says otherwise."""
    if fault.text is not None:
        return fault.text
    return _WRITTEN[fault.answer](refinement) if fault.answer else refinement


def spoilt(answer: CannedResponse, fault: Fault) -> CannedResponse:
    """The response with the fault's body and headers."""
    headers = dict(answer.headers)
    if fault.retry_after:
        headers["retry-after"] = fault.retry_after
    if 300 <= answer.status < 400:
        headers["location"] = "/services/elsewhere"
    answer = replace(answer, headers=headers)
    match fault.body:
        case "broken":
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        case "empty":
            return replace(answer, body=b"")
        case "html":
            page = f"<html><body><h1>{answer.status} {phrase(answer.status)}</h1></body></html>"
            return replace(answer, headers=headers | {"content-type": "text/html"}, body=page.encode())
        case "older":
            return replace(answer, body=answer.body.replace(b'"trace_id"', b'"traceId"'))
        case "plain":
            text = plain_text(answer.status, "Internal Server Error")
            return replace(text, headers=headers | dict(text.headers))
        case "traceless":
            return _without_trace(answer)
    return answer


def _failed_run(status: int, message: str, kind: str, has_trace: bool = True) -> CannedResponse:
    trace = {"session_id": uuid4().hex, "span_id": uuid4().hex[:16], "trace_id": uuid4().hex} if has_trace else {}
    outcome: dict[str, object] = {"code": status, "message": message, "type": kind}
    if kind == FAILED:
        outcome["stacktrace"] = _STACKTRACE
    return of_json(status, {**trace, "version": _VERSION, "status": outcome})


def _without_trace(answer: CannedResponse) -> CannedResponse:
    content = json.loads(answer.body)
    return replace(
        of_json(answer.status, {k: v for k, v in content.items() if k not in _TRACE_KEYS}), headers=answer.headers
    )


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
