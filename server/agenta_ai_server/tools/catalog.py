"""The catalog of tools."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server import tools
from agenta_ai_server.domain.tool import ToolSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from agenta_ai_server.agenta.completion_service import CompletionService
    from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.tools.cases.spending import Spending
    from agenta_ai_server.tools.computing import Computing
    from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
    from agenta_ai_server.tools.workers.pool import Workers

# Names listed in an error.
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of tools.

    Attributes:
        completions: Runs prompts that are deployed in Agenta.
        apps: Slug of the application that holds a tool's prompt, by the last segment of the tool's name.
        limiter: Gives the slots of calls.
        guarantee: Checks prompts and refinements.
        computing: Computes what takes long, for all tools that refine prompts.
        workers: Do what callers could make take any time.
        spending: What runs of test cases may cost this service.
        repairs: How often a tool may ask once more when the model's answer breaks its rules.
        cases_seconds: What refining a prompt against test cases may take at most.
    """

    completions: CompletionService
    apps: Mapping[str, str]
    limiter: ConcurrencyLimiter
    guarantee: Guarantee
    computing: Computing
    workers: Workers
    spending: Spending
    repairs: int = 0
    cases_seconds: float = 300.0


Provide: TypeAlias = "Callable[[Dependencies], ToolSpec]"


def discover() -> dict[str, Provide]:
    """Return what makes each built-in tool, by its name: the ``provide`` and ``NAME`` of modules of this package."""
    modules = (
        importlib.import_module(f"{tools.__name__}.{info.name}") for info in pkgutil.iter_modules(tools.__path__)
    )
    return {module.NAME: module.provide for module in modules if hasattr(module, "provide")}


class Catalog:
    """The current tools. The set changes as a whole; a call keeps the set with which it began.

    Args:
        current: The tools as they are now.
        may_change: Whether they may be others later.

    Attributes:
        may_change: As given.
    """

    def __init__(self, current: ToolSet, *, may_change: bool = False) -> None:
        self._current = current
        self._listeners: list[Callable[[ToolSet], None]] = []
        self._preparing: list[Callable[[ToolSet], None]] = []
        self.may_change = may_change

    @property
    def current(self) -> ToolSet:
        """The tools as they are now."""
        return self._current

    @current.setter
    def current(self, tools: ToolSet) -> None:
        self._current = tools
        for listener in self._listeners:
            listener(tools)

    def prepare(self, tools: ToolSet) -> None:
        """Do slow preparations before these become the current tools. May be called in a thread."""
        for prepare in self._preparing:
            prepare(tools)

    def before_change(self, prepare: Callable[[ToolSet], None]) -> None:
        """Call this, in any thread, with tools that are about to become the current ones."""
        self._preparing.append(prepare)

    def on_change(self, listener: Callable[[ToolSet], None]) -> None:
        """Call this with the tools whenever they have changed."""
        self._listeners.append(listener)


def tool_set(available: Iterable[ToolSpec], missing_settings: Collection[str], disabled: Collection[str]) -> ToolSet:
    """Return the tools that callers see.

    Args:
        available: All tools.
        missing_settings: Names of the settings that are missing: tools that need one of them are disabled.
        disabled: Names of the tools that are switched off: they don't exist for any caller.

    Raises:
        ValueError: A name is malformed or given twice.
    """
    return ToolSet((tool for tool in available if tool.name not in disabled), missing_settings)


def check_disabled(available: Iterable[str], disabled: Collection[str]) -> None:
    """Check that the tools exist that are switched off.

    Raises:
        ValueError: One doesn't.
    """
    names = sorted(available)
    if unknown := sorted(set(disabled).difference(names)):
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        raise ValueError(f"there is no tool {', '.join(unknown)}. The tools are: {', '.join(names[:MAX_NAMES])}{more}")
