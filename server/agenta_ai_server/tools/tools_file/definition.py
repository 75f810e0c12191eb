"""What a tools file says of each tool, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agenta_ai_server.domain.tool import Hints
    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.json_schema.schema import Schema
    from agenta_ai_server.tools.tools_file.lines import Lines, Place


@dataclass(frozen=True, slots=True)
class Checks:
    """The schemas of a tool, compiled.

    Attributes:
        arguments: Checks the arguments.
        result: Checks the result; ``None`` for a tool that answers with text.
    """

    arguments: Schema
    result: Schema | None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the file.

    Attributes:
        lines: Of the file.
        place: The path to a value.
    """

    lines: Lines
    place: Place

    @property
    def line(self) -> int:
        """The line of the place, from 1."""
        return self.lines.of(self.place)


@dataclass(frozen=True, slots=True)
class Example:
    """One call of a tool, and what it may result in.

    Attributes:
        arguments: What the tool is called with; valid by its schema.
        result: A result that is valid by the tool's schema, or a text if it has none; ``None`` if the file gives none.
        position: Where it stands in the file.
    """

    arguments: Mapping[str, Json]
    result: Json
    position: Position = field(repr=False, compare=False)

    @property
    def line(self) -> int:
        """Where it stands in the file, from 1."""
        return self.position.line


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition:
    """One tool of the file, checked.

    Attributes:
        name: ``tools.<provider>.<group>.<tool>``.
        application: Slug of the application in Agenta that holds the prompt.
        environment: Slug of the environment whose deployment is run; empty for the service's own.
        kind: The type of that application.
        title: Name for people.
        description: What the tool does and when to use it.
        permission: What a caller needs to see and call it.
        hints: How it behaves.
        arguments: JSON Schema 2020-12 of the arguments, of type object.
        result: JSON Schema 2020-12 of the result; ``None`` for a tool that answers with text.
        timeout_seconds: What one call may take at most; ``None`` for the service's own maximum.
        repairs: How often the model is asked again if its answer breaks the result's schema, from 0 to 3.
        feedback: Input of the prompt that takes what was wrong with the last answer; empty if there is none.
        examples: In the order of the file.
        prompt_file: The prompt that is shipped with the file, for ``provision --tools``; ``None`` if there is none.
        prompt: What that file says; ``None`` if there is none.
        position: Where the tool begins in the file.
        checks: The schemas, compiled.
    """

    name: str
    application: str
    environment: str
    kind: Literal["completion", "chat"]
    title: str
    description: str
    permission: str
    hints: Hints
    arguments: Mapping[str, Json]
    result: Mapping[str, Json] | None
    timeout_seconds: float | None
    repairs: int
    feedback: str
    examples: tuple[Example, ...]
    prompt_file: Path | None
    prompt: Mapping[str, Json] | None
    position: Position = field(repr=False, compare=False)
    checks: Checks = field(repr=False, compare=False)

    @property
    def line(self) -> int:
        """Where the tool begins in the file, from 1."""
        return self.position.line
