"""Helpers for values without a schema: counting, paths, and texts for callers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agenta_ai_server.tools.json_schema.bounds import MAX_INTEGER

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

# Stands for the value as a whole where paths begin with a key of it.
WHOLE = "answer"
_MAX_DOUBLE = int(sys.float_info.max)


def count_values(value: Json, most: int) -> int:
    """Return how many values there are, nested ones included; ``most`` if there are as many or more."""
    count, waiting = 0, [value]
    while waiting and count < most:
        each = waiting.pop()
        count += 1
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return count


def path_of(root: str, steps: list[str | int]) -> str:
    """Return a path as callers read it: ``arguments.items[3].name``."""
    path = root + "".join(f"[{step}]" if isinstance(step, int) else f".{step[:100]}" for step in steps)
    return path.removeprefix(".")


def find_long_key(value: Json, most: int) -> list[str | int] | None:
    """Return the path to a key of more than ``most`` characters, the key included; ``None`` if there is none."""
    waiting: list[tuple[list[str | int], Json]] = [([], value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, dict):
            for key in each:
                if len(key) > most:
                    return [*path, key]
            waiting.extend(([*path, key], item) for key, item in each.items())
        elif isinstance(each, list):
            waiting.extend(([*path, index], item) for index, item in enumerate(each))
    return None


def with_doubles(value: Json) -> Json:
    """Return the value with a double in place of each integer beyond 2**53, as a ``Struct`` holds it."""
    if isinstance(value, dict):
        return {key: with_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_doubles(item) for item in value]
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return float(min(max(value, -_MAX_DOUBLE), _MAX_DOUBLE))
    return value
