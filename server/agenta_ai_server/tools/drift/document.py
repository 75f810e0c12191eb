"""Edits a tools file, and preserves what people wrote: order, comments and layout."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import tomlkit
from tomlkit.items import Table

from agenta_ai_server.tools.drift.comparison import Drift
from agenta_ai_server.tools.drift.deployed import MESSAGES
from agenta_ai_server.tools.drift.schemas import Edit
from agenta_ai_server.tools.drift.toml import toml_key, toml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenta_ai_server.tools.drift.comparison import Difference
    from agenta_ai_server.tools.drift.deployed import PromptInterface

MAX_COLUMNS = 120
MAX_DESCRIPTION, MAX_TITLE = 4000, 200

CONVERSATION: Final = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string"}},
    },
}
"""Schema of the messages that a new tool takes for a chat application."""


@dataclass(frozen=True, slots=True)
class NewTool:
    """A tool that isn't in the file yet.

    Attributes:
        name: ``tools.<provider>.<group>.<tool>``.
        application: Slug of its application.
        environment: Slug of its environment; empty for the service's own.
        title: Name for people; empty for one that follows from the name.
        description: What it does.
        deployed: Its prompt.
    """

    name: str
    application: str
    environment: str
    title: str
    description: str
    deployed: PromptInterface


class ToolsDocument:
    """A tools file that is being edited.

    Args:
        text: What it says now; empty for a new one.
        read_beside: Reads a file that it names, by its relative path.

    Attributes:
        beside: New contents of the files that it names, by relative path.
    """

    def __init__(self, text: str, read_beside: Callable[[str], bytes]) -> None:
        self._document = tomlkit.parse(text)
        self._expected = tomllib.loads(text)
        self._read_beside = read_beside
        self._added: list[str] = []
        self.beside: dict[str, str] = {}

    def text(self) -> str:
        """Return what the file says with all changes.

        Raises:
            ValueError: It can't be edited without losing something of what it said.
        """
        text = tomlkit.dumps(self._document)
        if tomllib.loads(text) != self._expected:
            raise ValueError("can't be edited in place: its layout is too unusual. Make the change by hand")
        if self._added and text.strip():
            text = f"{text.rstrip()}\n\n"
        return text + "\n".join(self._added)

    def follow(self, name: str, deployed: PromptInterface, difference: Difference, *, widen: bool) -> str:
        """Change a tool so that one difference is gone, if that is allowed.

        Args:
            name: Name of the tool.
            deployed: Its prompt.
            difference: The difference.
            widen: Whether its result may allow more than it does.

        Returns:
            What was changed, as a sentence; empty if that is left to people.
        """
        edits: tuple[Edit, ...] = ()
        match difference.drift:
            case Drift.INPUT_ADDED:
                # Not a required one, which callers and examples don't have yet.
                done = f"Added the argument {difference.name}, which callers may leave out."
                edits = (Edit(("properties", difference.name), "set", _argument(deployed, difference.name)),)
            case Drift.RESULT_CHANGED if difference.change and (widen or not difference.change.widens):
                done = f"Changed the result: {difference.text}"
                edits = difference.change.edits
            case Drift.RESULT_ADDED if widen and deployed.result:
                done = "Added the result."
                edits = tuple(Edit((key,), "set", each) for key, each in deployed.result.items())
        part = "arguments" if difference.drift is Drift.INPUT_ADDED else "result"
        return done if edits and self.edit(name, part, edits) else ""

    def add(self, tool: NewTool) -> None:
        """Add a tool at the end.

        Raises:
            ValueError: The file that would hold its result is there already. The text is a sentence.
        """
        self._added.append(self._entry(tool))

    def edit(self, name: str, part: str, edits: tuple[Edit, ...]) -> bool:
        """Make changes in one schema of a tool; return whether that was possible."""
        expected = self._expected["tools"][name]
        tool: Any = self._document["tools"]
        tool = tool[name]
        path = expected.get(part, {}).get("file")
        if isinstance(path, str) and set(expected[part]) == {"file"}:
            schema = json.loads(self.beside.get(path) or self._read_beside(path))
            for edit in edits:
                apply_edit(schema, edit, lambda value: value)
            self.beside[path] = f"{json.dumps(schema, indent=2, ensure_ascii=False)}\n"
            return True
        if not all(_is_writable(edit) for edit in edits):
            return False
        if part not in expected:
            start = {"type": "object", "additionalProperties": False} if part == "arguments" else {}
            expected[part] = dict(start)
            tool[part] = tomlkit.table()
            tool[part].update(start)
        for edit in edits:
            apply_edit(expected[part], edit, copy.deepcopy)
            apply_edit(tool[part], edit, lambda value: tomlkit.value(toml_value(value)))
        return True

    def _entry(self, tool: NewTool) -> str:
        deployed = tool.deployed
        keys = {
            "application": tool.application,
            "environment": tool.environment,
            "kind": "chat" if deployed.kind == "chat" else "",
            "title": tool.title[:MAX_TITLE],
            "description": tool.description[:MAX_DESCRIPTION],
        }
        heading = f"tools.{toml_key(tool.name)}"
        lines = [f"[{heading}]", *(f"{key} = {toml_value(each)}" for key, each in keys.items() if each)]
        arguments: dict[str, Any] = {"type": "object", "additionalProperties": False}
        if deployed.inputs:
            arguments["required"] = list(deployed.inputs)
            arguments["properties"] = {name: _argument(deployed, name) for name in deployed.inputs}
        last = tool.name.rpartition(".")[2]
        lines += ["", f"[{heading}.arguments]", *self._schema(arguments, f"{last}.arguments.json")]
        if deployed.result is not None:
            lines += ["", f"[{heading}.result]", *self._schema(dict(deployed.result), f"{last}.result.json")]
        return "\n".join([*lines, ""])

    def _schema(self, schema: dict[str, Any], path: str) -> list[str]:
        """Return the lines of a schema; one with a null goes into a file, and the line names that."""
        try:
            return [line for key in schema for line in _lines(toml_key(key), schema[key])]
        except ValueError:
            pass
        if self._is_there(path):
            raise ValueError(f"{path} already exists, but is needed for the schema. Rename or remove it.")
        self.beside[path] = f"{json.dumps(schema, indent=2, ensure_ascii=False)}\n"
        return [f"file = {toml_value(path)}"]

    def _is_there(self, path: str) -> bool:
        if path in self.beside:
            return True
        try:
            self._read_beside(path)
        except ValueError:
            return False
        return True


def free_name(provider: str, group: str, slug: str, taken: Iterable[str]) -> str:
    """Return the name of a new tool for an application, which no other tool has.

    Args:
        provider: Second part of the name.
        group: Third part.
        slug: Slug of the application, which the last part is made of.
        taken: Names of the tools that there are.
    """
    last = re.sub(r"[^a-z0-9]+", "_", slug.lower()).strip("_") or "prompt"
    names = set(taken)
    name = f"tools.{provider}.{group}.{last}"
    number = 2
    while name in names:
        name = f"tools.{provider}.{group}.{last}_{number}"
        number += 1
    return name


def _argument(deployed: PromptInterface, name: str) -> dict[str, Any]:
    """Return the schema of a new argument: as the prompt's author wrote it, or else what its texts show."""
    if isinstance(written := deployed.input_schemas.get(name), dict):
        return dict(written)
    if deployed.kind == "chat" and name == MESSAGES:
        return dict(CONVERSATION)
    return {} if name in deployed.structured else {"type": "string"}


def _lines(key: str, value: Any) -> list[str]:
    """Return a key and its value in one line if they fit, or else in a line for each part of the value."""
    line = f"{key} = {toml_value(value)}"
    is_list_of_properties = key == "properties" or key.endswith(".properties")
    if not isinstance(value, dict) or not value or (len(line) <= MAX_COLUMNS and not is_list_of_properties):
        return [line]
    return [each for name in value for each in _lines(f"{key}.{toml_key(name)}", value[name])]


def _is_writable(edit: Edit) -> bool:
    """Whether TOML has what the change sets."""
    if edit.do not in ("set", "include"):
        return bool(edit.path)
    try:
        toml_value(edit.value)
    except ValueError:
        return False
    return bool(edit.path)


def apply_edit(schema: Any, edit: Edit, made: Callable[[Any], Any]) -> None:
    """Make one change in a schema, which is a dict or a part of a TOML document.

    Args:
        schema: The schema.
        edit: The change.
        made: Makes a value that can be put into it.
    """
    *steps, last = edit.path
    if edit.do == "set" and len(steps) == 1 and steps[0] not in schema and isinstance(schema, Table):
        # As people write it: properties.name = { … }
        schema.append(tomlkit.key([steps[0], last]), made(edit.value))
        return
    outer = schema
    for step in steps:
        if step not in schema:
            schema[step] = made({})
        outer, schema = schema, schema[step]
    if edit.do == "set":
        schema[last] = made(edit.value)
    elif edit.do in ("remove", "drop"):
        schema.pop(last, None)
        if edit.do == "drop" and not schema:
            # Where each property has a line of its own, none is left to say so.
            del outer[steps[-1]]
    else:
        _edit_list(schema, last, edit, made)


def _edit_list(schema: Any, key: str, edit: Edit, made: Callable[[Any], Any]) -> None:
    """Have the list that a schema has under a key hold the edit's value, or not."""
    holds = edit.value in schema.get(key, ())
    if edit.do == "exclude" and holds:
        schema[key].remove(edit.value)
    elif edit.do == "include" and not holds:
        if key in schema:
            schema[key].append(edit.value)
        else:
            schema[key] = made([edit.value])
