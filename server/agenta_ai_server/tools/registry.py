"""The tools, found by name and described for callers."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agenta_ai_server import tools
from agenta_ai_server.domain.errors import Reason, Refused, Violation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from pydantic_core import ErrorDetails

    from agenta_ai_server.agenta.completion import CompletionService
    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.results import Json, ToolResult

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
NAME = re.compile(r"tools\.[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+")

MAX_UNKNOWN = 10

Arguments = TypeVar("Arguments", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Hints:
    """How a tool behaves; ``None`` leaves the default of the Model Context Protocol."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


@dataclass(frozen=True, slots=True)
class Tool(Generic[Arguments]):
    """One tool.

    Attributes:
        name: ``tools.<provider>.<group>.<tool>``, of lowercase letters, digits and underscores.
        title: Name for people.
        description: What it does and when to use it.
        permission: What a caller needs to see and call it.
        arguments: What it takes; its JSON Schema is what callers see, so it should forbid extra keys.
        result: What it answers as structured content; serves the JSON Schema.
        run: Does the work. Raises ``Refused`` before it has any effect, ``ToolFailed`` after.
        hints: How it behaves.
    """

    name: str
    title: str
    description: str
    permission: str
    arguments: type[Arguments]
    result: type[BaseModel]
    run: Callable[[Arguments, Call], Awaitable[ToolResult]]
    hints: Hints = field(default_factory=Hints)

    @property
    def input_schema(self) -> dict[str, Json]:
        """JSON Schema of the arguments."""
        return {"$schema": JSON_SCHEMA, **self.arguments.model_json_schema()}

    @property
    def output_schema(self) -> dict[str, Json]:
        """JSON Schema of the result."""
        return {"$schema": JSON_SCHEMA, **self.result.model_json_schema(mode="serialization")}


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What tools may be made from.

    Attributes:
        completions: InFlightCalls prompts that are deployed in Agenta.
        apps: Slug of the application that holds a tool's prompt, by the last segment of the tool's name.
        repairs: How often a tool may ask once more when the model's answer breaks its rules.
    """

    completions: CompletionService
    apps: Mapping[str, str]
    repairs: int = 0


def discover(dependencies: Dependencies) -> list[Tool[Any]]:
    """Make every tool there is: each module in this package with a function ``provide(dependencies) -> Tool``."""
    modules = (
        importlib.import_module(f"{tools.__name__}.{info.name}") for info in pkgutil.iter_modules(tools.__path__)
    )
    return [module.provide(dependencies) for module in modules if hasattr(module, "provide")]


class Registry:
    """Dispatches calls by name, one namespace after the other.

    Args:
        available: The tools.
        disabled: Names of those that are switched off: they don't exist for any caller.

    Raises:
        ValueError: A name is malformed, given twice, or disabled without being there.
    """

    def __init__(self, available: Iterable[Tool[Any]] = (), disabled: Collection[str] = ()) -> None:
        self._root: dict[str, Any] = {}
        known = sorted(available, key=lambda tool: tool.name)
        if unknown := sorted(set(disabled) - {tool.name for tool in known}):
            raise ValueError(f"no such tool: {', '.join(unknown)}; there are: {', '.join(tool.name for tool in known)}")
        self.tools = [tool for tool in known if tool.name not in disabled]
        for tool in self.tools:
            self._add(tool)

    def find(self, name: str) -> Tool[Any]:
        """Return the tool of this name.

        Raises:
            Refused: TOOL_NOT_FOUND.
        """
        space: Any = self._root
        for segment in name.split("."):
            space = space.get(segment) if isinstance(space, dict) else None
        if isinstance(space, Tool):
            return space
        raise Refused(
            Reason.TOOL_NOT_FOUND, f"There is no tool {name[:100]!r}: ListTools lists those there are.", resource=name
        )

    async def call(self, name: str, arguments: dict[str, Json], call: Call) -> ToolResult:
        """Check the ``arguments`` and run the tool.

        Raises:
            Refused: TOOL_NOT_FOUND, ARGUMENTS_INVALID, or what the tool raises before it has any effect.
            ToolFailed: The tool ran and failed.
        """
        tool = self.find(name)
        result: ToolResult = await tool.run(_checked(tool.arguments, arguments), call)
        # A tool that breaks its own schema is a bug of ours, and must not look like a success.
        tool.result.model_validate(result.structured)
        return result

    def _add(self, tool: Tool[Any]) -> None:
        if not NAME.fullmatch(tool.name):
            raise ValueError(f"{tool.name} is no name of the form tools.<provider>.<group>.<tool>")
        *namespaces, last = tool.name.split(".")
        space = self._root
        for namespace in namespaces:
            space = space.setdefault(namespace, {})
        if last in space:
            raise ValueError(f"two tools are named {tool.name}")
        space[last] = tool


def _checked(model: type[Arguments], arguments: dict[str, Json]) -> Arguments:
    unknown = [name for name in arguments if name not in model.model_fields]
    if model.model_config.get("extra") == "forbid" and len(unknown) > MAX_UNKNOWN:
        # They are refused anyway, and telling each of them costs more than reading the request did.
        surplus = set(unknown[MAX_UNKNOWN:])
        arguments = {name: value for name, value in arguments.items() if name not in surplus}
    try:
        return model.model_validate(arguments, strict=True)
    except ValidationError as error:
        violations = [_violation(details, model) for details in error.errors(include_url=False, include_context=False)]
    first = violations[0]
    raise Refused(Reason.ARGUMENTS_INVALID, f"{first.field}: {first.description}", violations=violations)


def _violation(details: ErrorDetails, model: type[BaseModel]) -> Violation:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:100]}" for step in details["loc"])
    path = "arguments" + "".join(steps)
    description = details["msg"] + "."
    if details["type"] == "extra_forbidden":
        description = f"Unknown argument; the tool takes: {', '.join(model.model_fields)}."
    return Violation(path, description)
