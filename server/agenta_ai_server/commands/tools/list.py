"""The command ``agenta-ai-server tools list``: the tools of the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.tools.source import file_of, read_tools
from agenta_ai_server.tools.drift.comparison import argument_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

HEADINGS = ("NAME", "APPLICATION", "KIND", "ARGUMENTS", "RESULT", "PERMISSION", "EXAMPLES")


def run(environment: Mapping[str, str], file: Path | None, *, as_json: bool = False) -> int:
    """Print the tools.

    Args:
        environment: May name the file.
        file: The file, in its place.
        as_json: Whether to print JSON, with schemas and examples.

    Returns:
        0.

    Raises:
        SettingsError: No file is named, or it can't be read or has faults.
    """
    tools = read_tools(file_of(environment, file))
    if as_json:
        stdout.say(json.dumps([_described(tool) for tool in tools], indent=2, ensure_ascii=False))
    else:
        stdout.say(table([HEADINGS, *(_row(tool) for tool in tools)]) if tools else "The file has no tools.")
    return 0


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells in columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(tool: ToolDefinition) -> tuple[str, ...]:
    required = tool.arguments.get("required")
    needed = required if isinstance(required, list) else []
    arguments = " ".join(name if name in needed else f"[{name}]" for name in argument_names(tool))
    where = f" in {tool.environment}" if tool.environment else ""
    result = "text" if tool.result is None else "JSON"
    return (
        tool.name, f"{tool.application}{where}", tool.kind, arguments or "-", result, tool.permission,
        str(len(tool.examples)),
    )  # fmt: skip


def _described(tool: ToolDefinition) -> dict[str, object]:
    return {
        "name": tool.name,
        "application": tool.application,
        "environment": tool.environment or None,
        "kind": tool.kind,
        "title": tool.title,
        "description": tool.description,
        "permission": tool.permission,
        "arguments": tool.arguments,
        "result": tool.result,
        "examples": [{"arguments": example.arguments, "result": example.result} for example in tool.examples],
        "line": tool.line,
    }
