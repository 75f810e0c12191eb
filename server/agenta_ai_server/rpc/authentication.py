"""Finds out who calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.call import ANONYMOUS, Call
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Anonymous(Interceptor):
    """Lets everybody in as one principal: the mode ``AGENTA_AI_GRPC_AUTH=none``."""

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Name the caller."""
        call.principal = ANONYMOUS
        return await proceed(request, call)
