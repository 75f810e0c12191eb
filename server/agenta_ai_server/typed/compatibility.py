"""Finds the changes since the lock was written, and whether older stubs still work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.typed.lock import Lock
    from agenta_ai_server.typed.shape import Field, Message, ToolShape


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the lock and the tools as they are now.

    Attributes:
        path: The place: ``"tools.acme.support.classify_ticket: arguments.ticket"``.
        description: What changed, in a sentence.
        breaking: Whether a caller with an old stub, or one that sends what it always sent, would fail or lose
            something.
    """

    path: str
    description: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.description}"


class _Side(Enum):
    """The writer of a message, which decides what may change in it."""

    ARGUMENTS = auto()
    RESULT = auto()


def changes(lock: Lock, shapes: Mapping[str, ToolShape]) -> list[Change]:
    """Compare the tools with what stubs were last generated from.

    Breaking is what buf's category WIRE_JSON calls so (numbers, types and JSON names), and besides what makes callers
    fail although the wire is the same: an argument that has become required, a result that isn't always there any
    more, a tool that is gone.

    Args:
        lock: The lock file.
        shapes: The messages of the tools that have typed methods now, by their names.

    Returns:
        The changes, sorted by tool.
    """
    known = {name: tool for name, tool in lock.tools.items() if name not in lock.removed}
    found = []
    for name in sorted(known.keys() | shapes.keys()):
        if name not in shapes:
            found.append(Change(name, "The tool was removed, or no longer has a typed method.", breaking=True))
        elif name not in known:
            found.append(Change(name, "The tool is new.", breaking=False))
        else:
            then, now = known[name], shapes[name]
            found += _changes(then.arguments, now.arguments, f"{name}: arguments", _Side.ARGUMENTS)
            found += _changes(then.result, now.result, f"{name}: result", _Side.RESULT)
    return found


def _changes(then: Message, now: Message, path: str, side: _Side) -> Iterator[Change]:
    before = {field.key: field for field in then.fields}
    after = {field.key: field for field in now.fields}
    names = {field.name for field in now.fields}
    for name in before | after:
        place = f"{path}.{name}"
        if name not in after:
            lost = side is _Side.RESULT and before[name].required
            if before[name].name in names:
                yield Change(place, f"Its field {before[name].name} now belongs to another property.", breaking=True)
                continue
            why = "The property, which was always present, was removed." if lost else "The property was removed."
            yield Change(place, why, breaking=lost)
        elif name not in before:
            needed = side is _Side.ARGUMENTS and after[name].required
            why = "The property is new and required." if needed else "The property is new."
            yield Change(place, why, breaking=needed)
        else:
            yield from _field_changes(before[name], after[name], place, side)


def _field_changes(then: Field, now: Field, place: str, side: _Side) -> Iterator[Change]:
    if then.type != now.type:
        yield Change(place, f"Its type was {then.type} and is {now.type}.", breaking=True)
    elif then.required != now.required:
        how = "is now required" if now.required else "is no longer required"
        yield Change(place, f"The property {how}.", breaking=now.required is (side is _Side.ARGUMENTS))
    if then.type == now.type and then.message and now.message:
        yield from _changes(then.message, now.message, place, side)
