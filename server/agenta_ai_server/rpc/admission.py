"""Lets no more tools run at once than the server can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
    from agenta_ai_server.domain.call import Call


class ConcurrencyLimit(Interceptor):
    """Lets a ``CallTool`` proceed when it has a place."""

    def __init__(self, admission: ConcurrencyLimiter) -> None:
        self._admission = admission

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Hold a place for as long as the call runs."""
        if not isinstance(request, tool_service_pb2.CallToolRequest):
            return await proceed(request, call)
        async with self._admission.place(call.caller.organization, call.waiting):
            if call.callers:
                call.callers.begun = True
            return await proceed(request, call)
