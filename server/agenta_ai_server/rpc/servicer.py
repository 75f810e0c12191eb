"""The methods of the contract."""

from __future__ import annotations

import asyncio
import base64
import binascii
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agenta_ai.codec import to_struct
from agenta_ai.v1 import tool_pb2, tool_service_pb2
from agenta_ai_server.concurrency.turns import Turns
from agenta_ai_server.domain.errors import Reason, Refused, Violation, invalid_fields
from agenta_ai_server.domain.record import record
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.rpc.handler import CallHandler, Request, Response, ToolHandler
from agenta_ai_server.rpc.parsing import parse, read_arguments
from agenta_ai_server.rpc.responses import MAX_DEPTH, write_last_outcome, write_outcome, write_progress
from agenta_ai_server.rpc.status import SERVICE, to_duration
from agenta_ai_server.rpc.wire_format import CALL_TOOL, NO_VALUES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.auth.policy import AccessPolicy
    from agenta_ai_server.domain.call import Call, Principal
    from agenta_ai_server.domain.server_state import ServerState
    from agenta_ai_server.domain.tool import ToolSet, ToolSpec
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.limits.limits import Check, RateLimits
    from agenta_ai_server.rpc.tool_calls import ToolCalls
    from agenta_ai_server.tools.catalog import Catalog

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
LIST_TTL_SECONDS = 300
# If the tools may change soon.
CHANGING_LIST_TTL_SECONDS = 30
TOKEN_PREFIX = b"after:"
# Callers whose tools are described at the same time by Status, and how many tools of each.
MAX_STATUS_CALLERS = 4
TOOLS_AT_ONCE = 20

LIMITER_STATES = {
    None: tool_service_pb2.RATE_LIMITER_STATE_OFF,
    StoreState.SHARED: tool_service_pb2.RATE_LIMITER_STATE_SHARED,
    StoreState.LOCAL: tool_service_pb2.RATE_LIMITER_STATE_LOCAL,
    StoreState.FALLBACK: tool_service_pb2.RATE_LIMITER_STATE_FALLBACK,
}

AnyMessage = TypeVar("AnyMessage", bound=Message)


@record
class _Description:
    """A tool as the contract describes it, and the same as a serialized part of a ``ListToolsResponse``.

    To copy and serialize a hundred of them for each response would take ten milliseconds.
    """

    tool: tool_pb2.Tool
    listed: bytes


class ToolServicer:
    """Implements ``agenta.ai.v1.ToolService``.

    Args:
        state: The state of this server process.
        catalog: Knows the tools.
        policy: Decides who may see which of them.
        calls: Builds tool calls.
        limits: The rate limits in effect; ``None`` if there are none.
    """

    def __init__(
        self,
        state: ServerState,
        catalog: Catalog,
        policy: AccessPolicy,
        calls: ToolCalls,
        limits: RateLimits | None = None,
    ) -> None:
        self._state = state
        self._catalog = catalog
        self._policy = policy
        self._calls = calls
        self._limits = limits
        self._described: tuple[ToolSet | None, dict[str, _Description]] = (None, {})
        self._turns = Turns(MAX_STATUS_CALLERS)
        self._list_ttl = Duration(seconds=CHANGING_LIST_TTL_SECONDS if catalog.may_change else LIST_TTL_SECONDS)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods, as they stand behind the interceptors."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Status": _handler(tool_service_pb2.StatusRequest.FromString, self._status),
                "ListTools": _handler(tool_service_pb2.ListToolsRequest.FromString, self._list_tools),
                "CallTool": ToolHandler(self._read_call, write_outcome),
                # The requests have the same fields, so that one parser reads both.
                "CallToolStream": ToolHandler(self._read_call, write_last_outcome, write_progress),
            },
        )

    async def _status(self, _: tool_service_pb2.StatusRequest, call: Call) -> bytes:
        """Describe the service as this caller sees it."""
        self._policy.check_view(call.caller)
        tools = self._catalog.current
        enabled = not tools.is_disabled
        response = tool_service_pb2.StatusResponse(
            enabled=enabled,
            state=self._service_state(enabled),
            missing_settings=() if enabled else tools.missing_settings,
            server_version=self._state.version,
            start_time=Timestamp(seconds=int(self._state.started)),
            tools=await self._tool_statuses(tools, call.caller),
            rate_limiter_state=LIMITER_STATES[self._limits.state if self._limits else None],
        )
        return response.SerializeToString()

    async def _list_tools(self, request: tool_service_pb2.ListToolsRequest, call: Call) -> bytes:
        """List one page of the tools that this caller may call."""
        self._policy.check_view(call.caller)
        size = _page_size(request.page_size)
        after = _decode_page_token(request.page_token)
        tools = self._catalog.current
        rest = [tool for tool in self._policy.visible(call.caller, tools) if tool.name > after]
        everyone_sees_this = call.caller.permissions is None
        scope = tool_service_pb2.CACHE_SCOPE_PUBLIC if everyone_sees_this else tool_service_pb2.CACHE_SCOPE_PRIVATE
        last = tool_service_pb2.ListToolsResponse(
            next_page_token=_encode_page_token(rest[size - 1].name) if len(rest) > size else "",
            ttl=self._list_ttl,
            cache_scope=scope,
        )
        # Serialized messages in a row are one with the fields of all.
        return b"".join([self._describe(tool, tools).listed for tool in rest[:size]] + [last.SerializeToString()])

    def _read_call(self, data: bytes, call: Call) -> ToolCall:
        """Make the tool call of a ``CallToolRequest``."""
        request = parse(data, tool_service_pb2.CallToolRequest.FromString, CALL_TOOL)
        return self._calls.build(
            call,
            request.name,
            partial(read_arguments, request.arguments),
            request_id=request.request_id,
            rerun_if_outcome_unknown=request.rerun_if_outcome_unknown,
        )

    def _describe(self, tool: ToolSpec, tools: ToolSet) -> _Description:
        """Return the tool's description; made once for each set, and when it is first needed."""
        described, descriptions = self._described
        if described is not tools:
            descriptions = {}
            self._described = (tools, descriptions)
        if tool.name not in descriptions:
            descriptions[tool.name] = _describe(tool)
        return descriptions[tool.name]

    async def _tool_statuses(self, tools: ToolSet, principal: Principal) -> list[tool_service_pb2.ToolStatus]:
        """Return the status of each tool that the caller sees.

        For five hundred tools this takes 50 ms, and a request to Redis for each. Therefore a caller gets it for one
        call at a time, and it is made in parts, with pauses for other calls.
        """
        statuses: list[tool_service_pb2.ToolStatus] = []
        clock = asyncio.get_running_loop().time
        async with self._turns.turn(principal.key):
            visible = self._policy.visible(principal, tools)
            for begin in range(0, len(visible), TOOLS_AT_ONCE):
                part, began = visible[begin : begin + TOOLS_AT_ONCE], clock()
                statuses += await asyncio.gather(*(self._tool_status(tool, tools, principal) for tool in part))
                if len(statuses) < len(visible):
                    await asyncio.sleep(clock() - began)
        return statuses

    async def _tool_status(self, tool: ToolSpec, tools: ToolSet, principal: Principal) -> tool_service_pb2.ToolStatus:
        rate_limit = await self._rate_limit(tool.name, principal)
        return tool_service_pb2.ToolStatus(tool=self._describe(tool, tools).tool, rate_limit=rate_limit)

    async def _rate_limit(self, tool: str, principal: Principal) -> tool_service_pb2.RateLimit | None:
        try:
            check = await self._limits.peek(tool, principal) if self._limits else None
        except Refused:
            # Status answers even while the limiter can't say what is left.
            return None
        return _rate_limit_message(check) if check else None

    def _service_state(self, enabled: bool) -> tool_service_pb2.ServiceState.ValueType:
        if self._state.draining:
            return tool_service_pb2.SERVICE_STATE_DRAINING
        if not enabled:
            return tool_service_pb2.SERVICE_STATE_DISABLED
        if self._state.degraded:
            return tool_service_pb2.SERVICE_STATE_DEGRADED
        return tool_service_pb2.SERVICE_STATE_SERVING


def _handler(
    read: Callable[[bytes], AnyMessage], method: Callable[[AnyMessage, Call], Awaitable[bytes]]
) -> CallHandler:
    async def respond(request: Request, call: Call) -> Response:
        return Response(await method(parse(await request.read(), read, NO_VALUES), call))

    return CallHandler(respond)


def _page_size(page_size: int) -> int:
    if page_size < 0:
        raise _invalid("page_size", f"Must be from 0 to {MAX_PAGE_SIZE}; 0 means {DEFAULT_PAGE_SIZE}.")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _encode_page_token(name: str) -> str:
    return base64.urlsafe_b64encode(TOKEN_PREFIX + name.encode()).decode()


def _decode_page_token(token: str) -> str:
    """Return the name after which the page starts. Not a number, because a new tool would then shift later pages."""
    if not token:
        return ""
    try:
        position = base64.b64decode(token, altchars=b"-_", validate=True)
        if position.startswith(TOKEN_PREFIX):
            return position.removeprefix(TOKEN_PREFIX).decode()
    except (binascii.Error, ValueError):
        pass
    raise _invalid("page_token", "Must be the next_page_token of the previous page, or empty.")


def _invalid(field: str, description: str) -> Refused:
    return invalid_fields(Reason.REQUEST_INVALID, Violation(field, description))


def _describe(tool: ToolSpec) -> _Description:
    message = tool_pb2.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=to_struct(tool.input_schema, max_depth=MAX_DEPTH),
        output_schema=to_struct(tool.output_schema, max_depth=MAX_DEPTH),
        annotations=tool_pb2.ToolAnnotations(
            read_only_hint=tool.hints.read_only,
            destructive_hint=tool.hints.destructive,
            idempotent_hint=tool.hints.idempotent,
            open_world_hint=tool.hints.open_world,
        ),
    )
    return _Description(message, tool_service_pb2.ListToolsResponse(tools=[message]).SerializeToString())


def _rate_limit_message(check: Check) -> tool_service_pb2.RateLimit:
    return tool_service_pb2.RateLimit(
        burst=check.quota.limit.burst,
        refill_per_minute=max(round(check.quota.limit.per_minute), 1),
        remaining=check.decision.remaining,
        next_call_delay=to_duration(check.decision.delay),
    )
