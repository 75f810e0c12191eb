"""What a model reads about a failed call. Every sentence is the service's or ours, never an upstream's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agenta_ai.errors import AgentaError, CallFailed, InvalidInput, ToolFailed

if TYPE_CHECKING:
    from agenta_ai.meta import FieldViolation

# Key of what a failure tells programs.
ERROR_META = "ai.agenta/error"
# Seconds after which to come again, if an outage doesn't say.
OUTAGE_SECONDS = 30.0

_CALLERS_FAULT = ("INVALID_ARGUMENT", "NOT_FOUND")
_MAY_HAVE_RUN = "The call may have run and may have been billed."
# Neither a model nor a person can give a request_id to an MCP client.
_ADVICE = re.compile(r" (?:To get its result, send it again with|Use) request_id \S+")
# For callers on other machines, who must not learn where the service is.
_IN_GENERAL = {
    "UNAVAILABLE": "The service can't be reached.",
    "DEADLINE_EXCEEDED": "There was no answer in time.",
    "CANCELLED": "The connection to the service broke.",
}


def tool_error(failure: AgentaError, *, remote: bool) -> types.CallToolResult:
    """Return a failure as the result of a tool, so that a model can correct itself or try again.

    Args:
        failure: The error that was raised.
        remote: Whether callers may be on other machines, which must not learn the service's address.
    """
    return types.CallToolResult(
        content=[types.TextContent(text=sentence(failure, remote=remote))],
        is_error=True,
        _meta={ERROR_META: facts(failure)},
    )


def protocol_error(failure: AgentaError, *, remote: bool) -> MCPError:
    """Return a failure of a request that calls no tool."""
    wrong = isinstance(failure, InvalidInput) or status_of(failure) in _CALLERS_FAULT
    code = types.INVALID_PARAMS if wrong else types.INTERNAL_ERROR
    return MCPError(code, sentence(failure, remote=remote), {ERROR_META: facts(failure)})


def sentence(failure: AgentaError, *, remote: bool) -> str:
    """Return what happened and what to do, in terms that apply to an MCP client."""
    if not isinstance(failure, CallFailed):
        return str(failure)
    if status_of(failure) == "UNAUTHENTICATED":
        if remote:
            return "The service does not accept the credentials of this request. Send valid ones."
        return (
            "The service does not accept the credentials of agenta-ai mcp. Set a valid AGENTA_AI_API_KEY, "
            "or use a target that has one, and restart the server."
        )
    text = _ADVICE.sub("", str(failure))
    if remote and not failure.reason:
        text = _IN_GENERAL.get(status_of(failure), "The call failed.")
        if failure.request_id and failure.tool_was_run is None:
            text += f" {_MAY_HAVE_RUN}"
    if failure.retry_delay is None and (delay := retry_delay(failure)) and "try again" not in text.lower():
        text += f"{'' if text.endswith(('.', '?')) else '.'} Try again in {delay:.0f} s."
    return text


def retry_delay(failure: AgentaError) -> float | None:
    """Return the seconds to wait before trying again; ``None`` if waiting doesn't help."""
    if isinstance(failure, ToolFailed):
        return failure.retry_delay
    if not isinstance(failure, CallFailed) or failure.reason == "SERVICE_DISABLED":
        return None
    if failure.retry_delay is None and status_of(failure) == "UNAVAILABLE":
        return OUTAGE_SECONDS
    return failure.retry_delay


def status_of(failure: AgentaError) -> str:
    """Return the name of the status that a call ended with; empty if it didn't end with one."""
    return failure.code.name if isinstance(failure, CallFailed) else ""


def facts(failure: AgentaError) -> dict[str, Any]:
    """Return details for programs. A repeat with this ``requestId`` in ``_meta`` gets the result of the same call."""
    known: dict[str, Any] = {
        "reason": getattr(failure, "reason", "") or ("INVALID_INPUT" if isinstance(failure, InvalidInput) else ""),
        "status": status_of(failure),
        "retryDelaySeconds": retry_delay(failure),
        "retryable": getattr(failure, "retryable", None),
        "requestId": failure.request_id,
        "callId": failure.call_id,
        "fieldViolations": [_violation(each) for each in getattr(failure, "field_violations", ())],
    }
    return {name: value for name, value in known.items() if value not in ("", None, [])}


def _violation(violation: FieldViolation) -> dict[str, str]:
    return {"field": violation.field, "description": violation.description}
