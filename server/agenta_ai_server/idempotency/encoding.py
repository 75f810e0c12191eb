"""The form in which stores keep outcomes: a version, then JSON."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from agenta_ai_server.domain.errors import Reason, Violation
from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
from agenta_ai_server.domain.values import Attempt

# Grows with each change that an older reader would misread. Replicas of two versions may share a store.
VERSION = 1
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def encode(outcome: ToolOutcome) -> bytes:
    """Return the ``outcome`` as bytes."""
    failure = outcome.failure
    document: dict[str, Any] = {
        "text": outcome.text,
        "structured": outcome.structured,
        "failure": failure
        and {
            "reason": failure.reason,
            "retryable": failure.retryable,
            "retry_delay": failure.retry_delay,
            "violations": [[violation.field, violation.description] for violation in failure.violations],
        },
        "attempts": [[attempt.trace_id, attempt.seconds, attempt.span_id] for attempt in outcome.attempts],
        "repaired": outcome.repaired,
        "warnings": outcome.warnings,
    }
    # Half a surrogate pair makes it unreadable; it couldn't be sent either.
    return bytes([VERSION]) + _to_json(document).encode(errors="surrogatepass")


def decode(data: bytes) -> ToolOutcome:
    """Return the outcome that ``data`` holds.

    Raises:
        ValueError: It holds none, or one of a later version.
    """
    if data[:1] != bytes([VERSION]):
        raise ValueError("the stored outcome has an unknown version")
    document = _Document.model_validate_json(data[1:])
    return ToolOutcome(
        text=document.text,
        structured=document.structured,
        failure=_failure(document.failure),
        attempts=tuple(Attempt(*attempt) for attempt in document.attempts),
        repaired=document.repaired,
        warnings=document.warnings,
    )


def _failure(document: _Failure | None) -> ToolFailure | None:
    if document is None:
        return None
    violations = tuple(Violation(*violation) for violation in document.violations)
    return ToolFailure(document.reason, document.retryable, document.retry_delay, violations)


class _Stored(BaseModel):
    # The parser also refuses half a surrogate pair, which could not be sent, and endless nesting.
    # Built at the first replay, because many services never see one.
    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True, defer_build=True)


class _Failure(_Stored):
    reason: Reason
    retryable: bool
    retry_delay: float | None
    violations: tuple[tuple[str, str], ...]


class _Document(_Stored):
    text: str
    structured: JsonValue
    failure: _Failure | None
    attempts: tuple[tuple[str, float, str], ...]
    repaired: bool
    warnings: tuple[str, ...]
