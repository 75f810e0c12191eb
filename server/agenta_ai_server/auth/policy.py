"""The access policy: which caller may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Collection

    from agenta_ai_server.domain.call import Principal
    from agenta_ai_server.domain.tool import ToolSet, ToolSpec

# To ask for the status and the list of tools.
VIEW = "view_ai_services"
# To call any tool, besides what the tool itself needs.
RUN = "run_ai_services"
SERVICE_PERMISSIONS = (VIEW, RUN)
# Agenta's names for permissions that it has under another name.
NAMES_IN_AGENTA = {VIEW: "view_workflows", RUN: "run_service"}
# Agenta identifies a caller only while it checks a permission: this one, if no tool needs any.
IDENTIFYING_PERMISSION = "edit_workflows"


class AccessPolicy:
    """The permissions that each method requires.

    - ``Status`` and ``ListTools`` need ``view_ai_services``, if that is required, and show only what may be called.
    - ``CallTool`` and ``CallToolStream`` need ``run_ai_services``, if that is required, and the tool's own permission.
    - A caller from whom a tool is hidden can't tell it from one that doesn't exist.

    Args:
        required: Those of the service-wide permissions that are required at all.
    """

    def __init__(self, required: Collection[str] = ()) -> None:
        self._required = frozenset(required)

    def permissions(self, tools: ToolSet) -> frozenset[str]:
        """Return every permission that anything needs; one of Agenta's if nothing does, as in a disabled service."""
        return self._required.union(tool.permission for tool in tools.tools) or frozenset({IDENTIFYING_PERMISSION})

    def visible(self, principal: Principal, tools: ToolSet) -> list[ToolSpec]:
        """Return the tools that the caller may call, sorted by name."""
        if not self._has(principal, RUN):
            return []
        return [tool for tool in tools.tools if _may(principal, tool)]

    def check_view(self, principal: Principal) -> None:
        """Refuse a caller who may not see the status and the list of tools.

        Raises:
            Refused: PERMISSION_DENIED.
        """
        if not self._has(principal, VIEW):
            raise Refused(Reason.PERMISSION_DENIED, "You may not view this service. Ask its operator for permission.")

    def check_call(self, principal: Principal, name: str, tools: ToolSet) -> None:
        """Refuse a caller who may not call the tool of this name.

        A name that no tool has passes if nothing is hidden from this caller.

        Raises:
            Refused: PERMISSION_DENIED, with one text whether or not the tool exists.
        """
        tool = tools.find(name)
        may_run = self._has(principal, RUN)
        asked_for = (tool,) if tool else tools.everything
        if not all(may_run and _may(principal, each) for each in asked_for):
            raise Refused(
                Reason.PERMISSION_DENIED,
                "You may not call this tool, or there is no such tool. ListTools lists the tools that you may call.",
            )

    def _has(self, principal: Principal, permission: str) -> bool:
        return permission not in self._required or principal.may(permission)


def _may(principal: Principal, tool: ToolSpec) -> bool:
    return principal.may(tool.permission) and tool.admits(principal)
