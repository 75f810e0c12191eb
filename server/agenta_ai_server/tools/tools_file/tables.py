"""The tables of a tools file: their keys and types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.completion_service import Kind
    from agenta_ai_server.domain.values import Json

MAX_SECONDS = 600.0
MESSAGES = "messages"

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class _Hints(_Part):
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


class ExampleTable(_Part):
    """An example: one call of a tool, and a possible result."""

    arguments: dict[str, Any] = {}
    result: Any = None


class ToolTable(_Part):
    """One tool. The schemas in it are yet to be read."""

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
    examples: Annotated[list[ExampleTable], Field(max_length=100)] = []
    prompt: Annotated[str, Field(min_length=1)] | None = None


KEYS = tuple(ToolTable.model_fields)
"""The keys that a tool may have."""


def kind_of(tool: ToolTable, arguments: Mapping[str, Json]) -> Kind:
    """Return the type of the application: as the tool says, or else as its arguments tell."""
    return tool.kind or ("chat" if takes_messages(arguments) else "completion")


def takes_messages(arguments: Mapping[str, Json]) -> bool:
    """Whether these are the arguments of a chat application: there is a list of messages among them."""
    properties = arguments.get("properties")
    messages = properties.get(MESSAGES) if isinstance(properties, dict) else None
    return isinstance(messages, dict) and messages.get("type") == "array"
