"""Builds the tool calls of all methods, for the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.arguments import LazyArguments
from agenta_ai_server.domain.tool_call import ToolCall, is_request_id

if TYPE_CHECKING:
    from agenta_ai_server.domain.arguments import ReadArguments
    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.tools.catalog import Catalog


class ToolCalls:
    """Builds tool calls.

    Args:
        catalog: Knows the tools.
        max_seconds: What a call may take at most, unless its tool has a maximum of its own.
    """

    def __init__(self, catalog: Catalog, *, max_seconds: float) -> None:
        self._catalog = catalog
        self._max_seconds = max_seconds

    def build(
        self,
        call: Call,
        name: str,
        read_arguments: ReadArguments,
        *,
        request_id: str,
        rerun_if_outcome_unknown: bool,
    ) -> ToolCall:
        """Build the tool call of a request, and record in ``call`` what listeners need.

        Args:
            call: The RPC.
            name: Name of the tool, as the caller gave it.
            read_arguments: Reads the arguments from the request.
            request_id: As in :class:`ToolCall`.
            rerun_if_outcome_unknown: As in :class:`ToolCall`.
        """
        tools = self._catalog.current
        spec = tools.find(name)
        if spec:
            call.tool = spec.name
        if is_request_id(request_id):
            call.request_id = request_id
        max_seconds = self._max_seconds if spec is None or spec.max_seconds is None else spec.max_seconds
        return ToolCall(
            name=name,
            caller=call.caller,
            credential=call.credential,
            deadline=min(call.client_deadline, call.arrived + max_seconds),
            tools=tools,
            max_seconds=max_seconds,
            lazy_arguments=LazyArguments(read_arguments),
            request_id=request_id,
            rerun_if_outcome_unknown=rerun_if_outcome_unknown,
            response_metadata=call.response_metadata,
            watch=call.watch,
        )
