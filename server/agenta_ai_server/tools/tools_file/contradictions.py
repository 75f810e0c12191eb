"""What is right by itself in a tools file, and contradicts the rest of it, or JSON, or the service."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.tools.tools_file.tables import MAX_SECONDS, MESSAGES, kind_of, takes_messages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.json_schema.bounds import Found
    from agenta_ai_server.tools.tools_file.tables import ToolTable


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service allows that a file is for.

    Attributes:
        taken: Names that other tools have.
        max_seconds: What a call may take at most.
        min_seconds: What a call must have left to be made.
    """

    taken: frozenset[str] = frozenset()
    max_seconds: float = MAX_SECONDS
    min_seconds: float = 0.0


def find_contradictions(
    tool: ToolTable, arguments: Mapping[str, Json], prompt: Mapping[str, Json] | None, limits: Limits
) -> Iterator[Found]:
    """Yield a sentence for each, with the path below the tool's table.

    Args:
        tool: The table.
        arguments: The schema of its arguments.
        prompt: The prompt that is shipped with the file; ``None`` if there is none.
        limits: What the service allows.
    """
    if tool.repairs and tool.result is None:
        yield ("repairs",), "needs a result schema: without one, every text is valid"
    if tool.repairs and not tool.feedback:
        yield ("repairs",), "needs feedback: the prompt's input that receives what was wrong"
    properties = arguments.get("properties")
    names = set(properties if isinstance(properties, dict) else ())
    if tool.feedback in names:
        yield ("feedback",), "is an argument: the prompt needs an input of its own for it"
    if kind_of(tool, arguments) == "chat" and not takes_messages(arguments):
        yield (), 'a chat application needs an argument "messages" of type array'
    if tool.timeout_seconds is not None:
        yield from _faults_of_timeout(tool.timeout_seconds, limits)
    if prompt is not None:
        yield from _faults_of_inputs(tool, names, prompt)


def find_non_json(value: object) -> Iterator[Found]:
    """Yield what TOML has and JSON doesn't, with the path below the ``value``."""
    match value:
        case dict() | list():
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                # Most are texts.
                for path, sentence in () if isinstance(item, str) else find_non_json(item):
                    yield (key, *path), sentence
        case float() if not math.isfinite(value):
            yield (), f"is {value}, which JSON doesn't have"
        case None | bool() | int() | float() | str():
            pass
        case _:
            yield (), "is a date or time, which JSON doesn't have: write it in quotes"


def _faults_of_timeout(seconds: float, limits: Limits) -> Iterator[Found]:
    least, most = limits.min_seconds, limits.max_seconds
    place = ("timeout_seconds",)
    if seconds > most:
        yield place, f"must be at most {most:g}, the service's own (AGENTA_AI_GRPC_MAX_CALL_SECONDS)"
    if seconds <= least:
        yield (
            place,
            f"must be more than {least:g}, or every call is refused (AGENTA_AI_GRPC_MIN_REMAINING_SECONDS)",
        )


def _faults_of_inputs(tool: ToolTable, names: set[str], prompt: Mapping[str, Json]) -> Iterator[Found]:
    keys = prompt.get("input_keys")
    if not isinstance(keys, list):
        return
    inputs = {str(key) for key in keys}
    arguments = names - {MESSAGES} | ({tool.feedback} if tool.feedback else set())
    for name in sorted(inputs - arguments):
        yield ("arguments",), f"lacks {name!r}, which is an input of {tool.prompt}"
    for name in sorted(arguments - inputs):
        yield ("arguments", "properties", name), f"isn't an input of {tool.prompt}"
