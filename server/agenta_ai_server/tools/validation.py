"""Derives schemas and checks from pydantic models of arguments and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from agenta_ai_server.domain.errors import Reason, Violation, invalid_fields
from agenta_ai_server.domain.tool import JSON_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from pydantic_core import ErrorDetails

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool import RunTool
    from agenta_ai_server.domain.tool_call import ToolCall
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
) -> RunTool:
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
    if len(arguments) > MAX_UNKNOWN and model.model_config.get("extra") == "forbid":
        # The call is refused anyway, and reporting each unknown one costs more than reading the request did.
        unknown = [name for name in arguments if name not in model.model_fields]
        surplus = set(unknown[MAX_UNKNOWN:])
        arguments = {name: value for name, value in arguments.items() if name not in surplus}
    try:
        return model.model_validate(arguments, strict=True)
    except ValidationError as error:
        violations = [_violation(details, model) for details in error.errors(include_url=False, include_context=False)]
    raise invalid_fields(Reason.ARGUMENTS_INVALID, *violations)


def _violation(details: ErrorDetails, model: type[BaseModel]) -> Violation:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:100]}" for step in details["loc"])
    path = "arguments" + "".join(steps)
    description = details["msg"].removeprefix("Value error, ") + "."
    if details["type"] == "extra_forbidden":
        *above, _ = details["loc"]
        known = ", ".join(_model_at(model, above).model_fields)
        description = f"Unknown key. Known are: {known}." if above else f"Unknown argument. The tool takes: {known}."
    return Violation(path, description)


def _model_at(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel]:
    """Return the model of the value that a path leads to."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models(model.model_fields[step].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a type is made of, such as that of a list's items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
