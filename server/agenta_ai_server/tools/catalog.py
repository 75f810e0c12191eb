"""Which tools there are."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server import tools
from agenta_ai_server.domain.tool import ToolSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from agenta_ai_server.agenta.completion import CompletionService
    from agenta_ai_server.domain.tool import ToolSpec


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What tools may be made from.

    Attributes:
        completions: Runs prompts that are deployed in Agenta.
        apps: Slug of the application that holds a tool's prompt, by the last segment of the tool's name.
        repairs: How often a tool may ask once more when the model's answer breaks its rules.
        on_close: Takes what is to be awaited when the service has stopped.
    """

    completions: CompletionService
    apps: Mapping[str, str]
    repairs: int = 0
    on_close: Callable[[Callable[[], Awaitable[object]]], None] = lambda _: None


def discover(dependencies: Dependencies) -> list[ToolSpec]:
    """Make every built-in tool: each module of this package with a function ``provide(dependencies) -> ToolSpec``."""
    modules = (
        importlib.import_module(f"{tools.__name__}.{info.name}") for info in pkgutil.iter_modules(tools.__path__)
    )
    return [module.provide(dependencies) for module in modules if hasattr(module, "provide")]


class Catalog:
    """Knows the tools. The set changes as a whole; a call keeps the set that it began with.

    Attributes:
        current: The tools as they are now.
    """

    def __init__(self, current: ToolSet) -> None:
        self.current = current


def tool_set(available: Iterable[ToolSpec], missing_settings: Collection[str], disabled: Collection[str]) -> ToolSet:
    """Return the tools that callers see.

    Args:
        available: All tools.
        missing_settings: Names of the settings that are missing: tools that need one of them are disabled.
        disabled: Names of the tools that are switched off: they don't exist for any caller.

    Raises:
        ValueError: A tool is switched off that doesn't exist, or a name is malformed or given twice.
    """
    everything = list(available)
    names = sorted(tool.name for tool in everything)
    if unknown := sorted(set(disabled).difference(names)):
        raise ValueError(f"there is no tool {', '.join(unknown)}. The tools are: {', '.join(names)}")
    return ToolSet((tool for tool in everything if tool.name not in disabled), missing_settings)
