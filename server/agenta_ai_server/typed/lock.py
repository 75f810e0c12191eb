"""The lock file: which number each field has, and had, so that every server and every stub numbers alike.

Only ``agenta-ai-server tools proto`` writes it. A server never numbers a field by itself: replicas would do so
differently.
"""

from __future__ import annotations

import json
from collections import ChainMap
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from agenta_ai_server.typed.shape import REUSED, Fault, Field, Kind, Label, Message, Reserved, ToolShape, Unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agenta_ai_server.domain.tool import ToolSpec

VERSION = 1
LABELS = {label.format(kind): (kind, label) for label in Label for kind in Kind}
# protobuf's own numbers.
RESERVED_NUMBERS = range(19_000, 20_000)
NOT_LOCKED = "The tool is not in the lock file. Run 'agenta-ai-server tools proto'."


class LockError(ValueError):
    """The content isn't a lock file. ``str()`` says what to do."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The numbers of all fields.

    Attributes:
        tools: The messages of each tool by its name, as they were numbered last.
        removed: Names of tools among these that aren't there any more. Their numbers stay, in case they come back.
    """

    tools: dict[str, ToolShape] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def holds(self, tool: str) -> bool:
        """Whether the tool had numbers when the lock was last written."""
        return tool in self.tools and tool not in self.removed


def numbered(tool: str, shape: ToolShape, lock: Lock) -> ToolShape:
    """Return the messages of a tool with the numbers that the lock has for their fields.

    Raises:
        Unmapped: The tool or a field isn't in the lock, or has another type there.
    """
    if not lock.holds(tool):
        raise Unmapped([Fault(tool, NOT_LOCKED)])
    faults: list[Fault] = []
    known = lock.tools[tool]
    arguments = _numbered(shape.arguments, known.arguments, "arguments", faults)
    result = _numbered(shape.result, known.result, "result", faults)
    if faults:
        raise Unmapped(faults)
    return ToolShape(arguments, result)


def _numbered(message: Message, known: Message, path: str, faults: list[Fault]) -> Message:
    locked = {field.key: field for field in known.fields}
    fields = []
    for each in message.fields:
        place, other = f"{path}.{each.key}", locked.get(each.key)
        if other is None:
            faults.append(Fault(place, "The property is not in the lock file. Run 'agenta-ai-server tools proto'."))
        elif other.type != each.type:
            problem = f"The lock file has it as {other.type}, and its schema is now {each.type}."
            faults.append(Fault(place, f"{problem} Run 'agenta-ai-server tools proto'."))
        else:
            inner = each.message and _numbered(each.message, other.message or Message(), place, faults)
            fields.append(replace(each, number=other.number, message=inner))
    gone = {name: Reserved(field.number, field.type) for name, field in locked.items() if name not in _names(message)}
    return replace(message, fields=tuple(fields), reserved={**known.reserved, **gone})


def updated(lock: Lock, shapes: Mapping[str, ToolShape]) -> Lock:
    """Return the lock with numbers for all fields: known ones keep theirs, new ones get the next free number.

    What isn't there any more stays reserved. A field whose type has changed counts as a new one.

    Args:
        lock: The numbers up to now.
        shapes: The messages of the tools that there are now, by their names.
    """
    nothing = ToolShape(Message(), Message())
    tools = {}
    for name, shape in shapes.items():
        known = lock.tools.get(name, nothing)
        tools[name] = ToolShape(_updated(shape.arguments, known.arguments), _updated(shape.result, known.result))
    return Lock(dict(sorted(ChainMap(tools, lock.tools).items())), frozenset(lock.tools.keys() - shapes.keys()))


def _updated(message: Message, known: Message) -> Message:
    reserved = dict(known.reserved)
    locked = {field.key: field for field in known.fields}
    for name, other in locked.items():
        now = next((each for each in message.fields if each.key == name), None)
        if now is None:
            reserved[name] = Reserved(other.number, other.type)
        elif now.type != other.type:
            # Its name is used with another number, and only the old number is reserved.
            reserved[f"{name}{REUSED}{other.number}"] = Reserved(other.number, other.type)
    used = [each.number for each in locked.values()] + [each.number for each in reserved.values()]
    free = max(used, default=0) + 1
    fields = []
    for each in message.fields:
        same = locked.get(each.key)
        back = reserved.get(each.key)
        inner = Message()
        if same and same.type == each.type:
            number, inner = same.number, same.message or Message()
        elif back and back.type == each.type and not each.message:
            number = reserved.pop(each.key).number
        else:
            if back:
                reserved[f"{each.key}{REUSED}{back.number}"] = reserved.pop(each.key)
            number = free = RESERVED_NUMBERS.stop if free in RESERVED_NUMBERS else free
            free += 1
        fields.append(replace(each, number=number, message=each.message and _updated(each.message, inner)))
    return replace(message, fields=tuple(fields), reserved=reserved)


def _names(message: Message) -> set[str]:
    return {field.key for field in message.fields}


# --- The file


def beside(tools_file: Path) -> Path:
    """Return the path of the lock file of a tools file: ``tools.lock`` beside ``tools.toml``."""
    return tools_file.with_suffix(".lock")


def read_beside(tools_file: Path, read_file: Callable[[Path], bytes]) -> Lock:
    """Return the lock of a tools file; an empty one if there is none.

    Args:
        tools_file: Where the tools file is.
        read_file: Reads the lock file. Is called even if there is none, so that it can be noticed when there is one.

    Raises:
        ValueError: It can't be used.
    """
    path = beside(tools_file)
    try:
        content = read_file(path)
    except ValueError:
        if path.exists():
            raise
        return Lock()
    try:
        return parse(content)
    except LockError as error:
        raise ValueError(f"{path} {error}") from None


@cache
def builtin() -> Lock:
    """Return the numbers of the tools that come with the server."""
    return parse((files(__package__) / "builtin.lock").read_bytes())


def parse(content: bytes) -> Lock:
    """Return what a lock file holds.

    Raises:
        LockError: It isn't one of this version.
    """
    try:
        root = json.loads(content)
        if root["version"] != VERSION:
            raise ValueError("another version")
        tools = root["tools"]
        return Lock(
            {name: _tool(tool) for name, tool in tools.items()},
            frozenset(name for name, tool in tools.items() if tool.get("removed")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        how = "Restore it from version control: it keeps the field numbers that callers rely on."
        raise LockError(f"isn't a lock file of this version. {how}") from None


def with_numbers(tools: Iterable[ToolSpec], lock: Lock) -> list[ToolSpec]:
    """Return the tools with what the lock has of them."""
    known = {name: _stored_tool(tool) for name, tool in lock.tools.items() if name not in lock.removed}
    return [replace(tool, field_numbers=known[tool.name]) if tool.name in known else tool for tool in tools]


def lock_of(tools: Iterable[ToolSpec]) -> Lock:
    """Return the numbers of these tools, the built-in ones among them."""
    numbers = {tool.name: _tool(dict(tool.field_numbers)) for tool in tools if tool.field_numbers}
    return Lock(builtin().tools | numbers)


def _tool(stored: dict[str, Any]) -> ToolShape:
    return ToolShape(_message(stored["arguments"]), _message(stored["result"]))


def _message(stored: dict[str, Any]) -> Message:
    return Message(
        tuple(_field(name, field) for name, field in stored["fields"].items()),
        {name: Reserved(int(each["number"]), str(each["type"])) for name, each in stored.get("reserved", {}).items()},
    )


def _field(name: str, stored: dict[str, Any]) -> Field:
    kind, label = LABELS[stored["type"]]
    return Field(
        name,
        stored.get("field", name),
        kind,
        label,
        required=stored.get("required", False),
        message=_message(stored) if kind is Kind.MESSAGE else None,
        number=int(stored["number"]),
    )


def dump(lock: Lock) -> str:
    """Return the lock as the text of its file."""
    removed = {name: {"removed": True} for name in lock.removed}
    tools = {name: removed.get(name, {}) | _stored_tool(tool) for name, tool in lock.tools.items()}
    return json.dumps({"version": VERSION, "tools": tools}, indent=2, ensure_ascii=False) + "\n"


def _stored_tool(tool: ToolShape) -> dict[str, Any]:
    return {"arguments": _stored_message(tool.arguments), "result": _stored_message(tool.result)}


def _stored_message(message: Message) -> dict[str, Any]:
    stored: dict[str, Any] = {"fields": {field.key: _stored_field(field) for field in message.fields}}
    if message.reserved:
        stored["reserved"] = {
            name: {"number": each.number, "type": each.type} for name, each in message.reserved.items()
        }
    return stored


def _stored_field(field: Field) -> dict[str, Any]:
    stored: dict[str, Any] = {"number": field.number, "type": field.type}
    if field.name != field.key:
        stored["field"] = field.name
    if field.required:
        stored["required"] = True
    return stored | (_stored_message(field.message) if field.message else {})
