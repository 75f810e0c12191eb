"""The server of MCP: each request becomes a call of the service."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import grpc
import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from agenta_ai.errors import AgentaError, CallFailed, InvalidInput
from agenta_ai.mcp import failures, translation
from agenta_ai.mcp.callers import holder
from agenta_ai.mcp.progress import ProgressReport
from agenta_ai.mcp.shares import Hold, Shares
from agenta_ai.mcp.watching import ToolChanges, watch_tools
from agenta_ai.results import Progress
from agenta_ai.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.abc import TaskGroup
    from mcp.server.context import ServerRequestContext

    from agenta_ai.client import Client
    from agenta_ai.mcp.names import Names
    from agenta_ai.meta import Metadata
    from agenta_ai.results import ToolResult

    Context = ServerRequestContext["_Background", Any]

INSTRUCTIONS = (
    "Small AI tools, run by Agenta AI services. A call uses a model, so it takes seconds and costs money. "
    "If a tool reports invalid arguments, correct those that it names, and call it again."
)
# Calls of tools that run at the same time, and those of one caller. One connection to the service carries a thousand.
MAX_CALLS = 800
MAX_CALLS_OF_CALLER = 100
# Seconds after which to send a call again that is one too many.
RETRY_SECONDS = 5.0
# Streams that wait for changes of the tools, at most, and those of one caller.
MAX_LISTENERS = 1024
MAX_LISTENERS_OF_CALLER = 64


@dataclass(frozen=True)
class Bridge:
    """Answers the requests of MCP clients.

    Attributes:
        client: Of the service.
        names: How tools are named.
        caller: Returns the caller's credentials of a request, as metadata for the service.
        remote: Whether callers may be on other machines.
        hold: Returns what holds the memory of a request while it is used, which may be longer than its connection.
        timeout: Seconds that a tool may take; the client's own if ``None``.
    """

    client: Client
    names: Names
    caller: Callable[[Context], Metadata]
    remote: bool
    hold: Callable[[Context], Hold] = lambda _: Hold(Shares(0, 0), "")
    timeout: float | None = None
    _calls: Shares = field(default_factory=lambda: Shares(MAX_CALLS, MAX_CALLS_OF_CALLER))

    def server(self) -> Server[_Background]:
        """Return the server, which every transport of the SDK can run."""
        made: Server[_Background] = Server(
            "agenta-ai",
            version=__version__,
            title="Agenta AI services",
            website_url="https://agenta.ai",
            instructions=INSTRUCTIONS,
            lifespan=_background,
            # No argument travels as a header, too, so there is no schema to look up for each call.
            get_tool_input_schema=_no_header_arguments,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_subscriptions_listen=_Listen(self),
        )
        made.add_notification_handler("notifications/initialized", types.NotificationParams, self._initialized)
        return made

    async def _list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        cursor = params.cursor if params else None
        try:
            with self.hold(context):
                page = await self.client.list_tools_page(cursor or "", metadata=self.caller(context))
        except AgentaError as failure:
            raise failures.protocol_error(failure, remote=self.remote) from None
        return translation.tool_page(page, self.names, context.protocol_version)

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            with self.hold(context), self._counted(context):
                result = await self._run(context, params)
            result.raise_for_error()
        except AgentaError as failure:
            if isinstance(failure, CallFailed) and failure.reason == "TOOL_NOT_FOUND":
                raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name!a}.") from None
            return failures.tool_error(failure, remote=self.remote)
        return translation.call_result(result, context.protocol_version)

    @contextmanager
    def _counted(self, context: Context) -> Iterator[None]:
        """Count a running call.

        Raises:
            CallFailed: There are too many.
        """
        caller = holder(self.caller(context))
        if not self._calls.take(caller):
            raise CallFailed(
                f"Too many calls are running. Try again in {RETRY_SECONDS:g} s.",
                code=grpc.StatusCode.UNAVAILABLE,
                reason="OVERLOADED",
                retry_delay=RETRY_SECONDS,
                tool_was_run=False,
            )
        try:
            yield
        finally:
            self._calls.give_back(caller)

    async def _run(self, context: Context, params: types.CallToolRequestParams) -> ToolResult:
        report = ProgressReport(context.session)
        await self.hold(context).turn()
        events = self.client.stream_tool(
            self.names.meant(params.name),
            params.arguments or {},
            request_id=_request_id(context),
            timeout=self.timeout,
            metadata=self.caller(context),
        )
        async for event in events:
            if not isinstance(event, Progress):
                return event
            await report.send(event)
        raise AssertionError("a stream ended without a result")

    async def _initialized(self, context: Context, _: types.NotificationParams | None) -> None:
        """Notify a client of an earlier revision of changes over stdio, because it can't subscribe to them."""
        if context.request is None and not context.lifespan_context.is_watching:
            context.lifespan_context.is_watching = True
            context.lifespan_context.tasks.start_soon(
                watch_tools, self.client, self.caller(context), context.session.send_tool_list_changed
            )


class _Listen:
    """Serves ``subscriptions/listen``: each stream hears of changes of its own caller's tools."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._changes = ToolChanges(bridge.client)
        self._open = Shares(MAX_LISTENERS, MAX_LISTENERS_OF_CALLER)

    async def __call__(
        self, context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        caller = self._bridge.caller(context)
        if not self._open.take(holder(caller)):
            raise MCPError(types.INTERNAL_ERROR, "Too many streams wait for changes. Close some, or try again later.")
        try:
            with self._changes.of(caller) as bus:
                return await ListenHandler(bus)(context, params)
        finally:
            self._open.give_back(holder(caller))


def initialization(server: Server[_Background]) -> Any:
    """Return the answer to the handshake of an earlier revision over stdio."""
    return server.create_initialization_options(NotificationOptions(tools_changed=True))


def _request_id(context: Context) -> str | None:
    """Return the idempotency key that a client may send in ``_meta`` to repeat one of its calls.

    Raises:
        InvalidInput: It isn't a string.
    """
    meta: Any = context.meta or {}
    call = meta.get(translation.CALL_META)
    if call is None:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("requestId"), str):
        raise InvalidInput(f'_meta: "{translation.CALL_META}" must be an object with a string requestId.')
    request_id: str = call["requestId"]
    return request_id


def _no_header_arguments(_: str) -> None:
    return None


@dataclass
class _Background:
    """What runs in the background of a session over stdio, which is the only one of its server.

    Attributes:
        tasks: The tasks.
        is_watching: Whether one of them watches the tools. A client may send any number of ``initialized``.
    """

    tasks: TaskGroup
    is_watching: bool = False


@asynccontextmanager
async def _background(_: Server[_Background]) -> AsyncIterator[_Background]:
    """Keep background tasks while the server runs."""
    async with anyio.create_task_group() as tasks:
        yield _Background(tasks)
        tasks.cancel_scope.cancel()
