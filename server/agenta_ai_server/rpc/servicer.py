"""The three methods of the contract."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agenta_ai.v1 import content_pb2, error_pb2, tool_pb2, tool_service_pb2
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed, Violation
from agenta_ai_server.limits.limiter import LimiterState
from agenta_ai_server.rpc.convert import fill, from_struct, to_struct
from agenta_ai_server.rpc.status import REASON_PREFIX, to_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agenta_ai_server.auth.policy import AccessPolicy
    from agenta_ai_server.domain.call import Call, Principal
    from agenta_ai_server.domain.results import Attempt, ToolResult
    from agenta_ai_server.domain.server_state import ServerState
    from agenta_ai_server.limits.limits import Check, RateLimits
    from agenta_ai_server.tools.registry import Registry, Tool

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
LIST_TTL_SECONDS = 300
TOKEN_PREFIX = b"after:"

LIMITER_STATES = {
    None: tool_service_pb2.RATE_LIMITER_STATE_OFF,
    LimiterState.SHARED: tool_service_pb2.RATE_LIMITER_STATE_SHARED,
    LimiterState.LOCAL: tool_service_pb2.RATE_LIMITER_STATE_LOCAL,
    LimiterState.FALLBACK: tool_service_pb2.RATE_LIMITER_STATE_FALLBACK,
}


class ToolServicer:
    """Answers ``agenta.ai.v1.ToolService``, given a ``Call`` where grpc has its context.

    Args:
        service: The process that it stands in.
        registry: The tools; none if the feature is disabled.
        policy: Who may see which of them.
        limits: The rate limits that callers are kept to; ``None`` if there are none.
    """

    def __init__(
        self, service: ServerState, registry: Registry, policy: AccessPolicy, limits: RateLimits | None = None
    ) -> None:
        self._service = service
        self._registry = registry
        self._policy = policy
        self._limits = limits
        self._definitions = {tool.name: _definition(tool) for tool in registry.tools}

    @property
    def tools(self) -> Collection[str]:
        """Names of the tools that there are, also of those that a caller may not see."""
        return self._definitions.keys()

    async def Status(  # noqa: N802  # the name is the contract's
        self, request: tool_service_pb2.StatusRequest, call: Call
    ) -> tool_service_pb2.StatusResponse:
        """Describe the service as this caller sees it."""
        missing = self._service.missing_settings
        return tool_service_pb2.StatusResponse(
            enabled=not missing,
            state=self._state(),
            missing_settings=sorted(missing),
            server_version=self._service.version,
            start_time=Timestamp(seconds=int(self._service.started)),
            tools=[
                tool_service_pb2.ToolStatus(
                    tool=self._definitions[tool.name], rate_limit=await self._rate_limit(tool.name, call.caller)
                )
                for tool in self._visible(call)
            ],
            rate_limiter_state=LIMITER_STATES[self._limits.state if self._limits else None],
        )

    async def ListTools(  # noqa: N802
        self, request: tool_service_pb2.ListToolsRequest, call: Call
    ) -> tool_service_pb2.ListToolsResponse:
        """List one page of the tools that this caller may call."""
        size = _page_size(request.page_size)
        after = _after(request.page_token)
        names = [tool.name for tool in self._visible(call) if tool.name > after]
        everyone_sees_this = call.caller.permissions is None
        return tool_service_pb2.ListToolsResponse(
            tools=[self._definitions[name] for name in names[:size]],
            next_page_token=_token(names[size - 1]) if len(names) > size else "",
            ttl=Duration(seconds=LIST_TTL_SECONDS),
            cache_scope=tool_service_pb2.CACHE_SCOPE_PUBLIC
            if everyone_sees_this
            else tool_service_pb2.CACHE_SCOPE_PRIVATE,
        )

    async def CallTool(  # noqa: N802
        self, request: tool_service_pb2.CallToolRequest, call: Call
    ) -> tool_service_pb2.CallToolResponse:
        """Run one tool."""
        arguments = from_struct(request.arguments, "arguments")
        try:
            result = await self._registry.call(request.name, arguments, call)
        except ToolFailed as failure:
            return _failure(failure)
        return _success(result)

    def _visible(self, call: Call) -> list[Tool[Any]]:
        visible = self._policy.visible(call.caller)
        return [tool for tool in self._registry.tools if tool.name in visible]

    async def _rate_limit(self, tool: str, principal: Principal) -> tool_service_pb2.RateLimit | None:
        try:
            check = await self._limits.peek(tool, principal) if self._limits else None
        except Refused:
            # The status is told also while nobody can tell what is left.
            return None
        return _rate_limit(check) if check else None

    def _state(self) -> tool_service_pb2.ServiceState.ValueType:
        if self._service.draining:
            return tool_service_pb2.SERVICE_STATE_DRAINING
        if self._service.missing_settings:
            return tool_service_pb2.SERVICE_STATE_DISABLED
        if self._service.degraded:
            return tool_service_pb2.SERVICE_STATE_DEGRADED
        return tool_service_pb2.SERVICE_STATE_SERVING


def _page_size(page_size: int) -> int:
    if page_size < 0:
        raise _invalid("page_size", f"Must be from 0 to {MAX_PAGE_SIZE}; 0 means {DEFAULT_PAGE_SIZE}.")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(TOKEN_PREFIX + name.encode()).decode()


def _after(token: str) -> str:
    """Return the name after which the page starts. A name and no number, so that a new tool moves no page."""
    if not token:
        return ""
    try:
        position = base64.b64decode(token, altchars=b"-_", validate=True)
        if position.startswith(TOKEN_PREFIX):
            return position.removeprefix(TOKEN_PREFIX).decode()
    except (binascii.Error, ValueError):
        pass
    raise _invalid("page_token", "Is no token of this service: send the next_page_token of the page before, or none.")


def _invalid(field: str, description: str) -> Refused:
    return Refused(
        Reason.REQUEST_INVALID,
        f"{field}: {description}",
        violations=[Violation(field, description)],
    )


def _definition(tool: Tool[Any]) -> tool_pb2.Tool:
    return tool_pb2.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=to_struct(tool.input_schema),
        output_schema=to_struct(tool.output_schema),
        annotations=tool_pb2.ToolAnnotations(
            read_only_hint=tool.hints.read_only,
            destructive_hint=tool.hints.destructive,
            idempotent_hint=tool.hints.idempotent,
            open_world_hint=tool.hints.open_world,
        ),
    )


def _success(result: ToolResult) -> tool_service_pb2.CallToolResponse:
    response = tool_service_pb2.CallToolResponse(
        content=[content_pb2.ContentBlock(text=result.text)], meta=_meta(result.attempts)
    )
    response.meta.repaired = result.repaired
    response.meta.warnings.extend(result.warnings)
    fill(response.structured_content, result.structured)
    return response


def _failure(failure: ToolFailed) -> tool_service_pb2.CallToolResponse:
    error = error_pb2.ToolError(
        reason=error_pb2.ErrorReason.Value(REASON_PREFIX + failure.reason),
        retryable=failure.retryable,
        retry_delay=None if failure.retry_delay is None else to_duration(failure.retry_delay),
        field_violations=[
            error_pb2.FieldViolation(field=violation.field, description=violation.description)
            for violation in failure.violations
        ],
    )
    return tool_service_pb2.CallToolResponse(
        content=[content_pb2.ContentBlock(text=failure.message)],
        is_error=True,
        error=error,
        meta=_meta(failure.attempts),
    )


def _rate_limit(check: Check) -> tool_service_pb2.RateLimit:
    return tool_service_pb2.RateLimit(
        burst=check.quota.limit.burst,
        refill_per_minute=round(check.quota.limit.per_minute),
        remaining=check.decision.remaining,
        next_call_delay=to_duration(check.decision.delay),
    )


def _meta(attempts: Iterable[Attempt]) -> tool_service_pb2.CallMeta:
    made = [
        tool_service_pb2.Attempt(trace_id=attempt.trace_id, duration=to_duration(attempt.seconds))
        for attempt in attempts
    ]
    return tool_service_pb2.CallMeta(trace_id=made[-1].trace_id if made else "", attempts=made)
