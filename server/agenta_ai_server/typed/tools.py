"""Selects the tools that have a typed method, and reports why others have none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agenta_ai_server.typed.descriptors import TypedTool
from agenta_ai_server.typed.lock import NOT_LOCKED, numbered
from agenta_ai_server.typed.names import InvalidName, method_name
from agenta_ai_server.typed.schema import read_schemas
from agenta_ai_server.typed.shape import Fault, Unmapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.typed.lock import Lock
    from agenta_ai_server.typed.shape import ToolShape


def shapes(tools: Iterable[ToolSpec]) -> tuple[dict[str, ToolShape], list[Fault]]:
    """Return the messages of the tools by name, their fields without numbers, and why other tools have none."""
    tools = list(tools)
    found: dict[str, ToolShape] = {}
    faults: list[Fault] = []
    paths = Counter(path for tool in tools if (path := _path(tool.name)))
    for tool in tools:
        try:
            method = method_name(tool.name)
            if paths[method.path] > 1:
                raise Unmapped([Fault(tool.name, f"Another tool in its group would also be named {method.method}.")])
            found[tool.name] = read_schemas(tool.input_schema, tool.output_schema)
        except InvalidName as error:
            faults.append(Fault(tool.name, str(error)))
        except Unmapped as error:
            faults += _of(tool.name, error)
    return found, faults


def typed_tools(tools: Iterable[ToolSpec], lock: Lock) -> tuple[list[TypedTool], list[Fault]]:
    """Return the tools that have a typed method, with the numbers of the lock, and why others have none."""
    specs = {tool.name: tool for tool in tools}
    # The schemas of a tool without numbers aren't read, because reading hundreds of them would prolong the start.
    unnumbered, faults = shapes(tool for tool in specs.values() if lock.holds(tool.name))
    faults += [Fault(name, NOT_LOCKED) for name in specs if not lock.holds(name)]
    typed = []
    for name, shape in unnumbered.items():
        try:
            typed.append(TypedTool(name, specs[name].title, specs[name].description, numbered(name, shape, lock)))
        except Unmapped as error:
            faults += _of(name, error)
    return typed, faults


def _path(name: str) -> str:
    try:
        return method_name(name).path
    except InvalidName:
        return ""


def _of(tool: str, unmapped: Unmapped) -> list[Fault]:
    return [fault if fault.path == tool else Fault(f"{tool}: {fault.path}", fault.problem) for fault in unmapped.faults]
