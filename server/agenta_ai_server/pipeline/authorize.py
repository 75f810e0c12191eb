"""Decides whether the caller may call the tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Violation, invalid_fields
from agenta_ai_server.domain.tool import service_disabled

if TYPE_CHECKING:
    from agenta_ai_server.auth.policy import AccessPolicy
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.pipeline.pipeline import Proceed


class Authorize:
    """Refuses a call unless the service is configured, the caller has the permission, and the tool exists."""

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy

    async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
        """Refuse a call that may not be made.

        Raises:
            Refused: SERVICE_DISABLED, REQUEST_INVALID, PERMISSION_DENIED or TOOL_NOT_FOUND.
        """
        if call.tools.is_disabled:
            raise service_disabled()
        if not call.name:
            wrong = Violation("name", "Must be the name of a tool. ListTools lists them.")
            raise invalid_fields(Reason.REQUEST_INVALID, wrong)
        self._policy.check_call(call.caller, call.name, call.tools)
        # Refuses an unknown tool, and one that lacks a setting.
        call.tools.get(call.name)
        return await proceed(call)
