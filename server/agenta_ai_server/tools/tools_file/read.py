"""Reads a tools file as a whole: every tool in it is right, or every fault is told with its line."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agenta_ai_server.domain.files import read_file
from agenta_ai_server.domain.tool import NAME, Hints
from agenta_ai_server.tools.tools_file.definition import Example, ToolDefinition
from agenta_ai_server.tools.tools_file.lines import line_of, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.tools_file.lines import Place

MAX_TOOLS = 500
MAX_FAULTS = 50
MAX_SECONDS = 600.0

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)]


class ToolsFileError(ValueError):
    """The file can't be used. The message is a sentence for each fault, with its line.

    Attributes:
        faults: The sentences.
    """

    def __init__(self, faults: list[str]) -> None:
        shown = faults[:MAX_FAULTS]
        if len(faults) > MAX_FAULTS:
            shown.append(f"and {len(faults) - MAX_FAULTS} more faults")
        super().__init__("\n".join(shown))
        self.faults = faults


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class _Hints(_Part):
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


class _Example(_Part):
    arguments: dict[str, Any] = {}
    result: Any = None


class _Tool(_Part):
    application: Slug
    environment: Slug = ""
    kind: Literal["completion", "chat"] | None = None
    title: Annotated[str, Field(max_length=200)] = ""
    description: Annotated[str, Field(min_length=1, max_length=4000)]
    permission: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)] = "run_service"
    hints: _Hints = _Hints()
    timeout_seconds: Annotated[float | None, Field(gt=0, le=MAX_SECONDS)] = None
    repairs: Annotated[int, Field(ge=0, le=3)] = 0
    feedback: Annotated[str, Field(max_length=200)] = ""
    arguments: dict[str, Any] = {"type": "object", "additionalProperties": False}
    result: dict[str, Any] | None = None
    examples: Annotated[list[_Example], Field(max_length=100)] = []
    prompt: Annotated[str, Field(min_length=1)] | None = None


def read(path: Path) -> tuple[ToolDefinition, ...]:
    """Return the tools of the file at ``path``, in its order.

    Raises:
        ToolsFileError: It can't be read, or has faults. Sentences about faults begin with their lines.
    """
    try:
        content = read_file(path)
    except ValueError as error:
        raise ToolsFileError([str(error)]) from None
    return parse(content, path.parent)


def parse(
    content: bytes, folder: Path, *, read_beside: Callable[[Path], bytes] = read_file
) -> tuple[ToolDefinition, ...]:
    """Return the tools that a file says.

    Args:
        content: TOML, in UTF-8.
        folder: Where the file is, and the files that it names.
        read_beside: Reads those; raises ``ValueError`` with a sentence that names the path.

    Raises:
        ToolsFileError: With all faults, each with its line.
    """
    try:
        text = content.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ToolsFileError([f"isn't UTF-8 (at byte {error.start})"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ToolsFileError([f"isn't TOML: {error or 'it is nested too deeply'}"]) from None
    reading = _Reading(locate(text), folder, read_beside)
    tools = reading.tools(document)
    if reading.faults:
        raise ToolsFileError([f"line {line}: {fault}" for line, fault in sorted(reading.faults)])
    return tools


class _Reading:
    """Makes tools of one document, and collects what is wrong with it.

    Attributes:
        faults: The line and a sentence for each.
    """

    def __init__(self, lines: dict[Place, int], folder: Path, read_beside: Callable[[Path], bytes]) -> None:
        self.faults: list[tuple[int, str]] = []
        self._lines = lines
        self._folder = folder
        self._read_beside = read_beside

    def tools(self, document: dict[str, Any]) -> tuple[ToolDefinition, ...]:
        for key in document:
            if key != "tools":
                self._fault((key,), 'there is no such key; a tool begins with [tools."<its name>"]')
        tables = document.get("tools", {})
        if not isinstance(tables, dict):
            self._fault(("tools",), "must be a table with a table for each tool")
            return ()
        if len(tables) > MAX_TOOLS:
            self._fault(("tools",), f"there are {len(tables)} tools, and {MAX_TOOLS} may be")
            return ()
        return tuple(tool for name, table in tables.items() if (tool := self._tool(name, table)))

    def _fault(self, place: Place, sentence: str) -> None:
        path = place[1:] if place[:1] == ("tools",) else place
        where = ".".join(str(step) for step in path)
        self.faults.append((line_of(self._lines, place), f"{where}: {sentence}" if where else sentence))

    def _tool(self, name: str, table: object) -> ToolDefinition | None:
        place = ("tools", name)
        if not NAME.fullmatch(name):
            form = "must have the form tools.<provider>.<group>.<tool>, in quotes, of a-z, 0-9 and _"
            self._fault(place, f'{form}: [tools."tools.acme.support.classify_ticket"]')
            return None
        before = len(self.faults)
        tool = self._checked(place, table)
        arguments = self._schema((*place, "arguments"), tool.arguments)
        result = None if tool.result is None else self._schema((*place, "result"), tool.result)
        examples = self._examples(place, tool)
        prompt_file = None if tool.prompt is None else self._beside((*place, "prompt"), tool.prompt)
        prompt = None if prompt_file is None else self._prompt((*place, "prompt"), prompt_file)
        if len(self.faults) > before:
            return None
        return ToolDefinition(
            name=name,
            application=tool.application,
            environment=tool.environment,
            kind=tool.kind or ("chat" if _takes_messages(arguments) else "completion"),
            title=tool.title or name.rpartition(".")[2].replace("_", " ").capitalize(),
            description=tool.description,
            permission=tool.permission,
            hints=Hints(**tool.hints.model_dump()),
            arguments=arguments,
            result=result,
            timeout_seconds=tool.timeout_seconds,
            repairs=tool.repairs,
            feedback=tool.feedback,
            examples=examples,
            prompt_file=prompt_file,
            prompt=prompt,
            line=line_of(self._lines, place),
        )

    def _checked(self, place: Place, table: object) -> _Tool:
        """Return what is right of a tool's keys, so that the faults of the schemas in it are found as well."""
        try:
            return _Tool.model_validate(table)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
        for fault in faults:
            message = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
            self._fault((*place, *fault["loc"]), message.removeprefix("Value error, "))
        wrong = {fault["loc"][0] for fault in faults if fault["loc"]}
        right = {key: value for key, value in table.items() if key not in wrong} if isinstance(table, dict) else {}
        return _Tool.model_validate({"application": "-", "description": "-"} | right)

    def _schema(self, place: Place, table: dict[str, Any]) -> dict[str, Json]:
        """Return a schema that stands in the document, or in a file beside it."""
        if set(table) == {"file"} and isinstance(table["file"], str):
            path = self._beside((*place, "file"), table["file"])
            return {} if path is None else self._json_file((*place, "file"), path)
        self._check_json(place, table)
        return table

    def _json_file(self, place: Place, path: Path) -> dict[str, Json]:
        try:
            schema = json.loads(self._read_beside(path))
        except (ValueError, RecursionError) as error:
            is_json = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
            self._fault(place, f"{path.name} isn't JSON: {error}" if is_json else str(error))
            return {}
        if isinstance(schema, dict):
            return schema
        self._fault(place, f"{path.name} must hold a JSON object")
        return {}

    def _prompt(self, place: Place, path: Path) -> dict[str, Json] | None:
        try:
            return tomllib.loads(self._read_beside(path).decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self._fault(place, f"{path.name} isn't TOML: {error}")
        except ValueError as error:
            self._fault(place, str(error))
        return None

    def _beside(self, place: Place, name: str) -> Path | None:
        """Return the path of a file that the document names."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            self._fault(place, "must be the path of a file in the tools file's folder or below it")
            return None
        return self._folder / relative

    def _examples(self, place: Place, tool: _Tool) -> tuple[Example, ...]:
        examples = []
        for index, example in enumerate(tool.examples):
            here = (*place, "examples", index)
            self._check_json((*here, "arguments"), example.arguments)
            self._check_json((*here, "result"), example.result)
            examples.append(Example(example.arguments, example.result, line_of(self._lines, here)))
        return tuple(examples)

    def _check_json(self, place: Place, value: object) -> None:
        """Note what TOML has and JSON doesn't."""
        match value:
            case dict():
                for key, item in value.items():
                    self._check_json((*place, key), item)
            case list():
                for index, item in enumerate(value):
                    self._check_json((*place, index), item)
            case float() if not math.isfinite(value):
                self._fault(place, f"is {value}, which JSON doesn't have")
            case None | bool() | int() | float() | str():
                pass
            case _:
                self._fault(place, "is a date or time, which JSON doesn't have: write it in quotes")


def _takes_messages(arguments: Mapping[str, Json]) -> bool:
    """Whether these are the arguments of a chat application: there is a list of messages among them."""
    properties = arguments.get("properties")
    messages = properties.get("messages") if isinstance(properties, dict) else None
    return isinstance(messages, dict) and messages.get("type") == "array"
