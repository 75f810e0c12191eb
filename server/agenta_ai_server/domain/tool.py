"""A tool, and the set of tools that callers see. Neither knows a transport."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from agenta_ai_server.domain.call import Principal
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
NAME = re.compile(r"tools\.[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+")

RunTool: TypeAlias = "Callable[[ToolCall], Awaitable[ToolOutcome]]"


@dataclass(frozen=True, slots=True)
class Hints:
    """How a tool behaves; ``None`` leaves the default of the Model Context Protocol."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool.

    Attributes:
        name: ``tools.<provider>.<group>.<tool>``, of lowercase letters, digits and underscores.
        title: Name for people.
        description: What it does and when to use it.
        permission: What a caller needs to see and call it.
        input_schema: JSON Schema 2020-12 of the arguments, of type object.
        output_schema: JSON Schema 2020-12 of the structured result.
        run: Does the work. Raises ``Refused`` before it has any effect, ``ToolFailed`` after.
        hints: How it behaves.
        needs: Names of the settings without which it is disabled.
        max_seconds: What one call may take at most; ``None`` for the service's own maximum.
        field_numbers: Its part of the lock file, from which its typed method is made; ``None`` if it has none.
        admits: Returns whether a caller who has the permission may see and call it.
    """

    name: str
    title: str
    description: str
    permission: str
    input_schema: Mapping[str, Json]
    output_schema: Mapping[str, Json]
    run: RunTool
    hints: Hints = field(default_factory=Hints)
    needs: tuple[str, ...] = ()
    max_seconds: float | None = None
    field_numbers: Mapping[str, Json] | None = None
    admits: Callable[[Principal], bool] = lambda _: True


class ToolSet:
    """The tools at one moment, found by their names. Never changes.

    Args:
        tools: All tools.
        missing_settings: Names of the settings that are missing: the tools that need one of them are disabled.

    Attributes:
        tools: The tools that can be called, sorted by name.
        everything: These and the tools that lack a setting, sorted by name.
        missing_settings: Names of the settings that those lack, sorted.

    Raises:
        ValueError: A name is malformed or given twice.
    """

    def __init__(self, tools: Iterable[ToolSpec] = (), missing_settings: Collection[str] = ()) -> None:
        missing = frozenset(missing_settings)
        self.everything = tuple(sorted(tools, key=lambda tool: tool.name))
        self.tools = tuple(tool for tool in self.everything if missing.isdisjoint(tool.needs))
        lacking = {name for tool in self.everything for name in tool.needs}
        self.missing_settings = tuple(sorted(missing & lacking))
        self._enabled = frozenset(tool.name for tool in self.tools)
        self._by_name: dict[str, ToolSpec] = {}
        for tool in self.everything:
            self._add(tool)

    @property
    def is_disabled(self) -> bool:
        """Whether the whole service lacks settings."""
        return bool(self.missing_settings) and not self.tools

    def __contains__(self, name: str) -> bool:
        """Return whether a tool of this name can be called."""
        return name in self._enabled

    def find(self, name: str) -> ToolSpec | None:
        """Return the tool of this name, also one that lacks a setting; ``None`` if there is none."""
        return self._by_name.get(name)

    def get(self, name: str) -> ToolSpec:
        """Return the tool of this name.

        Raises:
            Refused: TOOL_NOT_FOUND, or SERVICE_DISABLED if it lacks a setting.
        """
        tool = self.find(name)
        if tool is None:
            message = f"There is no tool {name[:100]!r}. ListTools lists the tools."
            raise Refused(Reason.TOOL_NOT_FOUND, message, resource=name)
        if name not in self:
            raise service_disabled()
        return tool

    def _add(self, tool: ToolSpec) -> None:
        if not NAME.fullmatch(tool.name):
            raise ValueError(f"{tool.name} isn't a name of the form tools.<provider>.<group>.<tool>")
        if tool.name in self._by_name:
            raise ValueError(f"two tools are named {tool.name}")
        self._by_name[tool.name] = tool


def service_disabled() -> Refused:
    """Return the refusal of a tool that lacks a setting."""
    return Refused(
        Reason.SERVICE_DISABLED,
        "AI services are not configured on this server. Its Status names the settings that are missing.",
    )
