"""Finds out whether the call may be made: the service is enabled, the caller permitted, and the tool there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.errors import Reason, Refused, Violation
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai_server.auth.policy import AccessPolicy
    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.server_state import ServerState
    from agenta_ai_server.tools.registry import Registry


class Authorization(Interceptor):
    """Lets calls proceed by the policy."""

    def __init__(self, service: ServerState, policy: AccessPolicy, registry: Registry) -> None:
        self._service = service
        self._policy = policy
        self._registry = registry

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Refuse a call that may not be made."""
        if isinstance(request, tool_service_pb2.CallToolRequest):
            self._check_call(request.name, call)
        else:
            self._policy.check_view(call.caller)
        return await proceed(request, call)

    def _check_call(self, tool: str, call: Call) -> None:
        if self._service.missing_settings:
            raise Refused(
                Reason.SERVICE_DISABLED,
                "AI services are not configured on this server; its Status names the settings that are missing.",
            )
        if not tool:
            wrong = Violation("name", "Must be the name of a tool: ListTools lists them.")
            raise Refused(Reason.REQUEST_INVALID, f"{wrong.field}: {wrong.description}", violations=[wrong])
        self._policy.check_call(call.caller, tool)
        self._registry.find(tool)
