"""Derives schemas and checks from pydantic models of arguments and results."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agenta_ai_server.domain.errors import Reason, Violation, invalid_fields
from agenta_ai_server.domain.tool import JSON_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool import RunTool
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

# What a refusal tells.
MAX_VIOLATIONS = 10

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
    try:
        return model.model_validate(_with_few_unknown(arguments, model), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_VIOLATIONS]
    raise invalid_fields(Reason.ARGUMENTS_INVALID, *(_violation(details, model) for details in found))


def _with_few_unknown(value: Json, model: type[BaseModel]) -> Json:
    """Return what is to become a model, with no more unknown keys in each object than a refusal tells.

    It is refused anyway, and reporting each of them costs more than reading the request did.
    """
    if isinstance(value, list):
        return [_with_few_unknown(item, model) if isinstance(item, dict) else item for item in value]
    if not isinstance(value, dict):
        return value
    unknown = [name for name in value if name not in model.model_fields] if len(value) > MAX_VIOLATIONS else []
    surplus = set(unknown[MAX_VIOLATIONS:] if model.model_config.get("extra") == "forbid" else ())
    known = {name: item for name, item in value.items() if name not in surplus} if surplus else value
    inner = _inner_models(model)
    return known | {name: _with_few_unknown(known[name], inner[name]) for name in inner.keys() & known.keys()}


@cache
def _inner_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the model of each field that holds one, or a list of them."""
    found = {name: next(_models(field.annotation), None) for name, field in model.model_fields.items()}
    return {name: inner for name, inner in found.items() if inner and not _has_tables(model.model_fields[name])}


def _has_tables(field: FieldInfo) -> bool:
    return any(get_origin(part) is dict for part in (field.annotation, *get_args(field.annotation)))


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
