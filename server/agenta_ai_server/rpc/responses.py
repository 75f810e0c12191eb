"""The responses to tool calls: outcomes and progress as the contract's messages."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from agenta_ai.codec import fill
from agenta_ai.v1 import content_pb2, error_pb2, tool_service_pb2
from agenta_ai_server.domain.progress import Stage
from agenta_ai_server.rpc.status import REASON_PREFIX, to_duration

if TYPE_CHECKING:
    from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
    from agenta_ai_server.domain.progress import Progress

# A result that was billed is sent, even though only a few clients can read this many levels.
MAX_DEPTH = 100
STAGES = {stage: tool_service_pb2.ProgressStage.Value(f"PROGRESS_STAGE_{stage.name}") for stage in Stage}
# Unread progress stays in memory, and a sentence may quote a prompt.
MAX_PROGRESS_TEXT = 500


def write_outcome(outcome: ToolOutcome) -> bytes:
    """Return the ``CallToolResponse`` of a tool's outcome, serialized."""
    return _response(outcome).SerializeToString()


def write_last_outcome(outcome: ToolOutcome) -> bytes:
    """Return the last ``CallToolStreamResponse`` of a call, serialized."""
    return tool_service_pb2.CallToolStreamResponse(result=_response(outcome)).SerializeToString()


# Up to a hundred calls share a run, and get the same progress at the same time.
@lru_cache(maxsize=16)
def write_progress(progress: Progress) -> bytes:
    """Return the ``CallToolStreamResponse`` of a call's progress, serialized; the same bytes for all that watch it."""
    message = tool_service_pb2.Progress(
        stage=STAGES[progress.stage],
        text=progress.text[:MAX_PROGRESS_TEXT],
        done=progress.done,
        total=progress.total,
        queue_position=progress.queue_position,
        retry_delay=None if progress.retry_delay is None else to_duration(progress.retry_delay),
    )
    return tool_service_pb2.CallToolStreamResponse(progress=message).SerializeToString()


def _response(outcome: ToolOutcome) -> tool_service_pb2.CallToolResponse:
    response = tool_service_pb2.CallToolResponse(
        content=[content_pb2.ContentBlock(text=outcome.text)], meta=meta_message(outcome)
    )
    if outcome.failure:
        response.is_error = True
        response.error.CopyFrom(error_message(outcome.failure))
    else:
        fill(response.structured_content, outcome.structured, exact=False, max_depth=MAX_DEPTH)
    return response


def error_message(failure: ToolFailure) -> error_pb2.ToolError:
    """Return the ``ToolError`` of a tool's failure."""
    return error_pb2.ToolError(
        reason=error_pb2.ErrorReason.Value(REASON_PREFIX + failure.reason),
        retryable=failure.retryable,
        retry_delay=None if failure.retry_delay is None else to_duration(failure.retry_delay),
        field_violations=[
            error_pb2.FieldViolation(field=violation.field, description=violation.description)
            for violation in failure.violations
        ],
    )


def meta_message(outcome: ToolOutcome) -> tool_service_pb2.CallMeta:
    """Return the ``CallMeta`` of a tool's outcome."""
    attempts = [
        tool_service_pb2.Attempt(trace_id=attempt.trace_id, duration=to_duration(attempt.seconds))
        for attempt in outcome.attempts
    ]
    return tool_service_pb2.CallMeta(
        trace_id=attempts[-1].trace_id if attempts else "",
        attempts=attempts,
        repaired=outcome.repaired,
        replayed=outcome.replayed,
        warnings=outcome.warnings,
    )
