"""From the contract's messages to results. Pure functions, no I/O."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

from agenta_ai import cases, results
from agenta_ai.codec import from_struct, from_value
from agenta_ai.failures import REASON_PREFIX, call_id_of, seconds
from agenta_ai.meta import Attempt, CallMeta, FieldViolation, Metadata
from agenta_ai.v1 import content_pb2, error_pb2, tool_pb2, tool_service_pb2

if TYPE_CHECKING:
    from enum import StrEnum

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

_State = TypeVar("_State", bound="StrEnum")


def read_status(response: tool_service_pb2.StatusResponse) -> results.ServiceStatus:
    """Return the service's status in Python's types."""
    return results.ServiceStatus(
        enabled=response.enabled,
        state=_state(tool_service_pb2.ServiceState, response.state, results.ServiceState.SERVING),
        missing_settings=tuple(response.missing_settings),
        server_version=response.server_version,
        start_time=response.start_time.ToDatetime(tzinfo=UTC) if response.HasField("start_time") else None,
        tools=tuple(
            results.ToolStatus(
                read_tool(status.tool), _rate_limit(status.rate_limit) if status.HasField("rate_limit") else None
            )
            for status in response.tools
        ),
        rate_limiter_state=_state(
            tool_service_pb2.RateLimiterState, response.rate_limiter_state, results.RateLimiterState.UNSPECIFIED
        ),
    )


def read_page(response: tool_service_pb2.ListToolsResponse) -> results.ToolPage:
    """Return a page of tools in Python's types."""
    return results.ToolPage(
        tools=tuple(read_tool(tool) for tool in response.tools),
        next_page_token=response.next_page_token,
        ttl=seconds(response.ttl),
        is_public=response.cache_scope == tool_service_pb2.CACHE_SCOPE_PUBLIC,
    )


def read_tool(tool: tool_pb2.Tool) -> results.Tool:
    """Return a tool in Python's types."""
    hints = tool.annotations
    return results.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=from_struct(tool.input_schema),
        output_schema=from_struct(tool.output_schema),
        annotations=results.ToolAnnotations(
            read_only=hints.read_only_hint,
            destructive=hints.destructive_hint if hints.HasField("destructive_hint") else True,
            idempotent=hints.idempotent_hint,
            open_world=hints.open_world_hint if hints.HasField("open_world_hint") else True,
        ),
        icons=tuple(results.Icon(icon.src, icon.mime_type, tuple(icon.sizes)) for icon in tool.icons),
    )


def read_progress(progress: tool_service_pb2.Progress) -> results.Progress:
    """Return the progress of a call, in Python's types."""
    return results.Progress(
        stage=_state(tool_service_pb2.ProgressStage, progress.stage, results.ProgressStage.UNSPECIFIED),
        text=progress.text,
        done=progress.done,
        total=progress.total,
        queue_position=progress.queue_position,
        retry_delay=seconds(progress.retry_delay) if progress.HasField("retry_delay") else None,
    )


def read_result(
    response: tool_service_pb2.CallToolResponse, request_id: str = "", trailers: Metadata = ()
) -> results.ToolResult:
    """Return the result of a tool, in Python's types."""
    blocks = (_content(block) for block in response.content)
    return results.ToolResult(
        content=tuple(block for block in blocks if block is not None),
        structured_content=from_value(response.structured_content),
        is_error=response.is_error,
        error=read_tool_error(response.error) if response.HasField("error") else None,
        meta=read_meta(response.meta),
        request_id=request_id,
        call_id=call_id_of(trailers),
        trailers=trailers,
    )


def read_refined(result: results.ToolResult, original: dict[str, Any]) -> results.RefinedPrompt:
    """Return the result of ``tools.agenta.api.refine_prompt``.

    Raises:
        ToolFailed: The tool failed.
        ValueError: The answer isn't of the form that this version knows.
    """
    result.raise_for_error()
    match result.structured_content:
        case {"prompt_template_json": str(text), "messages": list(), "summary": str(summary)}:
            return results.RefinedPrompt(
                template=_refined_template(text, original),
                summary=summary,
                original=original,
                template_json=text,
                meta=result.meta,
                request_id=result.request_id,
                call_id=result.call_id,
                trailers=result.trailers,
            )
    raise ValueError("The answer is not a refinement.")


def read_refined_with_cases(result: results.ToolResult, original: dict[str, Any]) -> cases.RefinedWithCases:
    """Return what ``tools.agenta.api.refine_prompt_with_cases`` answered.

    Raises:
        ToolFailed: The tool failed.
        ValueError: The answer isn't of the form that this version knows.
    """
    result.raise_for_error()
    answer = result.structured_content
    try:
        text = answer["prompt_template_json"]
        return cases.RefinedWithCases(
            template=_refined_template(text, original),
            summary=_text(answer["summary"]),
            improved=bool(answer["improved"]),
            passed_before=int(answer["passed_before"]),
            passed_after=int(answer["passed_after"]),
            cases=tuple(
                cases.CaseReport(_text(each["name"]), _case_result(each["before"]), _case_result(each["after"]))
                for each in answer["cases"]
            ),
            rounds=tuple(
                cases.RefinementRound(
                    _text(each["end"]), _text(each["why"]), _text(each["summary"]), int(each["passed"])
                )
                for each in answer["rounds"]
            ),
            stopped=_text(answer["stopped"]),
            model_calls=int(answer["model_calls"]),
            copied_texts=tuple(
                cases.CopiedText(_text(each["case"]), _text(each["text"])) for each in answer["copied_texts"]
            ),
            original=original,
            template_json=text,
            meta=result.meta,
            request_id=result.request_id,
            call_id=result.call_id,
            trailers=result.trailers,
        )
    except (KeyError, TypeError):
        raise ValueError("The answer is not a refinement against test cases.") from None


def _refined_template(text: str, original: dict[str, Any]) -> dict[str, Any]:
    """Return the refined template.

    Raises:
        ValueError: It isn't JSON, or its messages aren't those of the original with other texts.
    """
    template = json.loads(text)
    if not isinstance(template, dict) or _outline(template) != _outline(original):
        raise ValueError("The template is not a refinement of the original.")
    return template


def _outline(template: dict[str, Any]) -> object:
    """Return the roles of the messages and the types of their contents; ``None`` if there are no messages."""
    messages = template.get("messages")
    if not isinstance(messages, list):
        return None
    return [(each.get("role"), type(each.get("content"))) if isinstance(each, dict) else each for each in messages]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _case_result(answer: Any) -> cases.CaseResult:
    known = {verdict.value for verdict in cases.Verdict}
    return cases.CaseResult(
        verdict=cases.Verdict(answer["verdict"] if answer["verdict"] in known else "unknown"),
        passes=int(answer["passes"]),
        runs=tuple(
            cases.CaseRun(
                passed=bool(each["passed"]),
                output=_text(each["output"]),
                faults=tuple(_text(fault) for fault in each["faults"]),
                failure=_text(each["failure"]),
                trace_id=_text(each["trace_id"]),
            )
            for each in answer["runs"]
        ),
    )


def _content(block: content_pb2.ContentBlock) -> results.Content | None:
    match block.WhichOneof("kind"):
        case "text":
            return results.TextContent(block.text)
        case "image":
            return results.ImageContent(block.image.data, block.image.mime_type)
        case "audio":
            return results.AudioContent(block.audio.data, block.audio.mime_type)
        case "resource_link":
            link = block.resource_link
            size = link.size if link.HasField("size") else None
            return results.ResourceLink(link.uri, link.name, link.title, link.description, link.mime_type, size)
    return None


def read_meta(meta: tool_service_pb2.CallMeta) -> CallMeta:
    """Return how a result was produced, in Python's types."""
    return CallMeta(
        trace_id=meta.trace_id,
        attempts=tuple(Attempt(attempt.trace_id, seconds(attempt.duration)) for attempt in meta.attempts),
        repaired=meta.repaired,
        replayed=meta.replayed,
        warnings=tuple(meta.warnings),
    )


def read_tool_error(error: error_pb2.ToolError) -> results.ToolError:
    """Return why a tool failed, in Python's types."""
    return results.ToolError(
        reason=_enum_name(error_pb2.ErrorReason, error.reason).removeprefix(REASON_PREFIX),
        retryable=error.retryable,
        retry_delay=seconds(error.retry_delay) if error.HasField("retry_delay") else None,
        field_violations=tuple(FieldViolation(v.field, v.description) for v in error.field_violations),
    )


def _rate_limit(limit: tool_service_pb2.RateLimit) -> results.RateLimit:
    return results.RateLimit(limit.burst, limit.refill_per_minute, limit.remaining, seconds(limit.next_call_delay))


def _enum_name(enum: _EnumTypeWrapper[Any], number: int) -> str:
    """Return the value's name, or its number as text if this version doesn't know it."""
    return enum.Name(number) if number in enum.values() else str(number)


def _state(enum: _EnumTypeWrapper[Any], number: int, unknown: _State) -> _State:
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    try:
        return type(unknown)(_enum_name(enum, number).removeprefix(prefix))
    except ValueError:
        return unknown
