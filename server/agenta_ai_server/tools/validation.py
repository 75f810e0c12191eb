"""Derives schemas and checks from pydantic models of arguments and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from agenta_ai_server.domain.errors import Reason, Refused, Violation
from agenta_ai_server.domain.tool import JSON_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic_core import ErrorDetails

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool import Run, ToolCall
    from agenta_ai_server.domain.values import Json

MAX_UNKNOWN = 10

Arguments = TypeVar("Arguments", bound=BaseModel)


def input_schema(model: type[BaseModel]) -> dict[str, Json]:
    """Return the JSON Schema of arguments."""
    return {"$schema": JSON_SCHEMA, **model.model_json_schema()}


def output_schema(model: type[BaseModel]) -> dict[str, Json]:
    """Return the JSON Schema of a result."""
    return {"$schema": JSON_SCHEMA, **model.model_json_schema(mode="serialization")}


def validated(
    arguments: type[Arguments], result: type[BaseModel], run: Callable[[Arguments, ToolCall], Awaitable[ToolOutcome]]
) -> Run:
    """Return a tool's ``run`` behind the checks of its models.

    Args:
        arguments: What the tool takes; should forbid extra keys, since its schema is what callers see.
        result: What the tool gives as its structured result.
        run: The tool.
    """

    async def checked(call: ToolCall) -> ToolOutcome:
        outcome = await run(_arguments(arguments, call.arguments), call)
        if outcome.failure is None:
            # A tool that breaks its own schema is a bug of ours, and must not look like a success.
            result.model_validate(outcome.structured)
        return outcome

    return checked


def _arguments(model: type[Arguments], arguments: dict[str, Json]) -> Arguments:
    """Return the ``arguments`` as a model.

    Raises:
        Refused: ARGUMENTS_INVALID.
    """
    unknown = [name for name in arguments if name not in model.model_fields]
    if model.model_config.get("extra") == "forbid" and len(unknown) > MAX_UNKNOWN:
        # The call is refused anyway, and reporting each of them costs more than reading the request did.
        surplus = set(unknown[MAX_UNKNOWN:])
        arguments = {name: value for name, value in arguments.items() if name not in surplus}
    try:
        return model.model_validate(arguments, strict=True)
    except ValidationError as error:
        violations = [_violation(details, model) for details in error.errors(include_url=False, include_context=False)]
    first = violations[0]
    raise Refused(Reason.ARGUMENTS_INVALID, f"{first.field}: {first.description}", violations=violations)


def _violation(details: ErrorDetails, model: type[BaseModel]) -> Violation:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:100]}" for step in details["loc"])
    path = "arguments" + "".join(steps)
    description = details["msg"] + "."
    if details["type"] == "extra_forbidden":
        description = f"Unknown argument. The tool takes: {', '.join(model.model_fields)}."
    return Violation(path, description)
