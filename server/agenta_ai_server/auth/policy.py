"""Who may do what: all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agenta_ai_server.domain.call import Principal

#: To ask for the status and the list of tools.
VIEW = "view_ai_services"
#: To call any tool, besides what the tool itself needs.
RUN = "run_ai_services"
SERVICE_PERMISSIONS = (VIEW, RUN)
# Agenta says who somebody is only when it is asked about a permission.
ANY = "edit_workflows"


class AccessPolicy:
    """What each method needs.

    - ``Status`` and ``ListTools`` need ``view_ai_services``, if that is required, and show only what may be called.
    - ``CallTool`` needs ``run_ai_services``, if that is required, and the tool's own permission.
    - A caller from whom a tool is hidden can't tell it from one that doesn't exist.

    Args:
        tools: The permission that each tool needs, by the tool's name.
        required: Those of the service-wide permissions that are required at all.
    """

    def __init__(self, tools: Mapping[str, str], required: Collection[str] = ()) -> None:
        self._tools = dict(tools)
        self._required = frozenset(required)

    @property
    def permissions(self) -> frozenset[str]:
        """Every permission that anything needs; one of Agenta's if nothing does, as in a service that is disabled."""
        return self._required.union(self._tools.values()) or frozenset({ANY})

    def visible(self, principal: Principal) -> frozenset[str]:
        """Return the names of the tools that the caller may call."""
        if not self._has(principal, RUN):
            return frozenset()
        return frozenset(name for name, permission in self._tools.items() if principal.may(permission))

    def check_view(self, principal: Principal) -> None:
        """Let pass who may ask for the status and the list of tools.

        Raises:
            Refused: PERMISSION_DENIED.
        """
        if not self._has(principal, VIEW):
            raise Refused(Reason.PERMISSION_DENIED, "You may not look at this service: ask its operator to let you.")

    def check_call(self, principal: Principal, tool: str) -> None:
        """Let pass who may call the ``tool``; also a name that no tool has, if nothing is hidden from this caller.

        Raises:
            Refused: PERMISSION_DENIED, with one text whether or not the tool exists.
        """
        visible = self.visible(principal)
        if tool not in visible and len(visible) < len(self._tools):
            raise Refused(
                Reason.PERMISSION_DENIED,
                "You may not call this tool, or there is none of this name: ListTools lists those that you may call.",
            )

    def _has(self, principal: Principal, permission: str) -> bool:
        return permission not in self._required or principal.may(permission)
