"""Reads a tools file as a whole, and reports every fault with its line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agenta_ai_server.domain.tool import NAME, Hints
from agenta_ai_server.files.contents import read_file
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.json_schema.schema import Schema, SchemaError
from agenta_ai_server.tools.tools_file.contradictions import Limits, find_contradictions, find_non_json
from agenta_ai_server.tools.tools_file.definition import Checks, Example, Position, ToolDefinition
from agenta_ai_server.tools.tools_file.lines import Lines
from agenta_ai_server.tools.tools_file.tables import ExampleTable, ToolTable, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.json_schema.bounds import Found
    from agenta_ai_server.tools.tools_file.lines import Place

MAX_TOOLS = 500
# Agenta is asked about each of them for each caller.
MAX_PERMISSIONS = 20
MAX_FAULTS = 50
TOO_DEEP = "is nested too deeply"
# A response of Status contains all of them, and clients read at most 4 MiB by default.
MAX_SCHEMA_BYTES = 2 * 1024 * 1024
WRONG_NAME = (
    "must have the form tools.<provider>.<group>.<tool>, in quotes, of a-z, 0-9 and _: "
    '[tools."tools.acme.support.classify_ticket"]'
)


class ToolsFileError(ValueError):
    """The file can't be used. The message is a sentence for each fault, with its line.

    Attributes:
        faults: The sentences.
    """

    def __init__(self, faults: list[str]) -> None:
        shown = faults[:MAX_FAULTS]
        if len(faults) > MAX_FAULTS:
            shown.append(f"and {len(faults) - MAX_FAULTS} more errors")
        super().__init__("; ".join(shown) if len(shown) == 1 else "\n    ".join(["The file has errors:", *shown]))
        self.faults = faults


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
    content: bytes, folder: Path, limits: Limits | None = None, *, read_beside: Callable[[Path], bytes] = read_file
) -> tuple[ToolDefinition, ...]:
    """Return the tools that a file says.

    Args:
        content: TOML, in UTF-8.
        folder: Where the file is, and the files that it names.
        limits: What the service that it is for allows; by default what every service may.
        read_beside: Reads those; raises ``ValueError`` with a sentence that names the path.

    Raises:
        ToolsFileError: With all faults, each with its line.
    """
    try:
        text = content.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ToolsFileError([f"isn't UTF-8 (at byte {error.start})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ToolsFileError([f"isn't TOML: {error}"]) from None
    except RecursionError:
        raise ToolsFileError([TOO_DEEP]) from None
    try:
        reading = _Reading(Lines(text), folder, limits or Limits(), read_beside)
        tools = reading.tools(document)
    except RecursionError:
        raise ToolsFileError([TOO_DEEP]) from None
    if reading.faults:
        raise ToolsFileError([f"line {line}: {fault}" for line, fault in sorted(reading.faults)])
    return tools


class _Reading:
    """Makes tools of one document, and collects what is wrong with it.

    Attributes:
        faults: The line and a sentence for each.
        schema_bytes: Size of all schemas so far, as JSON.
    """

    def __init__(self, lines: Lines, folder: Path, limits: Limits, read_beside: Callable[[Path], bytes]) -> None:
        self.faults: list[tuple[int, str]] = []
        self.schema_bytes = 0
        self._limits = limits
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
            self._fault(("tools",), f"there are {len(tables)} tools, more than the maximum of {MAX_TOOLS}")
            return ()
        read = tuple(tool for name, table in tables.items() if (tool := self._tool(name, table)))
        if self.schema_bytes > MAX_SCHEMA_BYTES:
            sentence = (
                f"the schemas have {self.schema_bytes:,} bytes together, more than the maximum of {MAX_SCHEMA_BYTES:,}"
            )
            self._fault(("tools",), sentence)
        permissions = {tool.permission for tool in read}
        if len(permissions) > MAX_PERMISSIONS:
            self._fault(
                ("tools",),
                f"{len(permissions)} different permissions are used, more than the maximum of {MAX_PERMISSIONS}",
            )
        return read

    def _fault(self, place: Place, sentence: str) -> None:
        path = place[1:] if place[:1] == ("tools",) else place
        where = ".".join(str(step) for step in path)
        self.faults.append((self._lines.of(place), f"{where}: {sentence}" if where else sentence))

    def _note(self, place: Place, found: Iterable[Found]) -> None:
        for path, sentence in found:
            self._fault((*place, *path), sentence)

    def _tool(self, name: str, table: object) -> ToolDefinition | None:
        place = ("tools", name)
        if not NAME.fullmatch(name):
            self._fault(place, WRONG_NAME)
            return None
        if name in self._limits.taken:
            self._fault(place, "is the name of a built-in tool")
        before = len(self.faults)
        tool = self._checked(place, table)
        arguments = self._schema((*place, "arguments"), tool.arguments)
        result = None if tool.result is None else self._schema((*place, "result"), tool.result)
        prompt_file = None if tool.prompt is None else self._beside((*place, "prompt"), tool.prompt)
        prompt = None if prompt_file is None else self._prompt((*place, "prompt"), prompt_file)
        checks = self._compiled(place, arguments, result)
        examples = self._examples(place, tool, checks)
        self._note(place, find_contradictions(tool, arguments, prompt, self._limits))
        if checks is None or len(self.faults) > before:
            return None
        return ToolDefinition(
            name=name,
            application=tool.application,
            environment=tool.environment,
            kind=kind_of(tool, arguments),
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
            position=Position(self._lines, place),
            checks=checks,
        )

    def _checked(self, place: Place, table: object) -> ToolTable:
        """Return what is right of a tool's keys, so that the faults of the schemas in it are found as well."""
        try:
            return ToolTable.model_validate(table)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
        for fault in faults:
            message = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
            self._fault((*place, *fault["loc"]), message.removeprefix("Value error, "))
        wrong = {fault["loc"][0] for fault in faults if fault["loc"]}
        right = {key: value for key, value in table.items() if key not in wrong} if isinstance(table, dict) else {}
        return ToolTable.model_validate({"application": "-", "description": "-"} | right)

    def _schema(self, place: Place, table: dict[str, Any]) -> dict[str, Json]:
        """Return a schema that stands in the document, or in a file beside it; one without content if it is wrong."""
        before = len(self.faults)
        if set(table) == {"file"} and isinstance(table["file"], str):
            path = self._beside((*place, "file"), table["file"])
            schema = {} if path is None else self._json_file((*place, "file"), path)
        else:
            self._note(place, find_non_json(table))
            schema = table
        return schema if len(self.faults) == before else {"type": "object"}

    def _json_file(self, place: Place, path: Path) -> dict[str, Json]:
        try:
            content = self._read_beside(path)
        except ValueError as error:
            self._fault(place, str(error))
            return {}
        try:
            schema = strict_json.parse(content.decode(), exact=False, max_values=None)
        except UnicodeDecodeError as error:
            self._fault(place, f"{path.name} isn't UTF-8 (at byte {error.start})")
        except ValueError as error:
            self._fault(place, f"{path.name} {error}")
        else:
            if isinstance(schema, dict):
                return schema
            self._fault(place, f"{path.name} must contain a JSON object")
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

    def _compiled(self, place: Place, arguments: dict[str, Json], result: dict[str, Json] | None) -> Checks | None:
        if arguments.get("type") != "object":
            self._fault((*place, "arguments"), 'must have type = "object"')
        checks = {"arguments": self._compiled_one((*place, "arguments"), arguments)}
        if result is not None:
            checks["result"] = self._compiled_one((*place, "result"), result)
        if checks["arguments"] is None or None in checks.values():
            return None
        return Checks(checks["arguments"], checks.get("result"))

    def _compiled_one(self, place: Place, source: dict[str, Json]) -> Schema | None:
        self.schema_bytes += len(json.dumps(source))
        try:
            schema = Schema(source)
        except SchemaError as error:
            self._note(place, error.faults)
            return None
        properties = source.get("properties")
        for name, each in properties.items() if isinstance(properties, dict) else ():
            if isinstance(each, dict) and "default" in each:
                self._check_default((*place, "properties", name, "default"), name, each["default"], schema)
        return schema

    def _check_default(self, place: Place, name: str, default: Json, schema: Schema) -> None:
        for violation in schema.violations({name: default}, ""):
            rest = violation.field.removeprefix(name)
            if violation.field.startswith(name) and rest[:1] in ("", ".", "["):
                self._fault(place, f"doesn't match its own schema: {violation.description}")

    def _examples(self, place: Place, tool: ToolTable, checks: Checks | None) -> tuple[Example, ...]:
        examples = []
        for index, example in enumerate(tool.examples):
            here = (*place, "examples", index)
            self._note((*here, "arguments"), find_non_json(example.arguments))
            self._note((*here, "result"), find_non_json(example.result))
            if checks:
                self._check_example(here, example, checks)
            examples.append(Example(example.arguments, example.result, Position(self._lines, here)))
        return tuple(examples)

    def _check_example(self, place: Place, example: ExampleTable, checks: Checks) -> None:
        for violation in checks.arguments.violations(example.arguments, "arguments"):
            self._fault(place, f"{violation.field}: {violation.description}")
        if example.result is None:
            return
        if checks.result is None:
            if not isinstance(example.result, str):
                self._fault((*place, "result"), "must be a text: the tool has no result schema")
            return
        for violation in checks.result.violations(example.result, "result"):
            self._fault((*place, "result"), f"{violation.field}: {violation.description}")
