"""What is said of values without a schema: how many there are, and the path to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

#: Stands for the value as a whole where paths begin with a key of it.
WHOLE = "answer"


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
