"""Schemas within the mapping, instances of them, and tools that have them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolCall, ToolSpec
from agenta_ai_server.typed.names import InvalidName, field_name, json_name

NAMES = st.one_of(
    st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,4}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9]{0,3}([A-Z][a-z0-9]{1,4}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,4}){0,2}", fullmatch=True),
    st.sampled_from(["from", "class", "message", "string", "builder", "arguments", "result", "oneof", "reserved"]),
)
SCALARS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 0, "maxLength": 10},
    {"type": "string", "enum": ["billing", "", "a b"]},
    {"const": "fixed"},
    {"type": "integer"},
    {"enum": [1, 2**60 + 1]},
    {"type": "number", "description": "A number.\nOf two lines."},
    {"type": "boolean", "default": True},
]
FREE: list[Any] = [
    True,
    {},
    {"type": "object"},
    {"type": "array"},
    {"type": ["string", "integer"]},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
]


def distinct(names: list[str]) -> list[str]:
    """Those whose fields can stand beside each other."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found.setdefault(json_name(field_name(name)).lower().replace("_", ""), name)
        except InvalidName:
            continue
    # A message for the values of "a" would be named like one for "aItem" or "aEntry".
    return [name for key, name in found.items() if not key.endswith(("item", "entry"))]


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    """The schema of an object with known properties."""
    names = distinct(draw(st.lists(NAMES, min_size=1, max_size=5)))
    properties = {name: draw(schemas(depth)) for name in names or ["text"]}
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def schemas(depth: int) -> st.SearchStrategy[Any]:
    scalars = st.sampled_from(SCALARS)
    inner = objects(depth - 1) if depth else scalars
    plain = st.one_of(
        scalars,
        st.sampled_from(FREE),
        inner,
        st.builds(lambda items: {"type": "array", "items": items}, st.one_of(scalars, inner)),
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1}, scalars),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, scalars),
    )
    return st.one_of(
        plain,
        st.builds(lambda schema: {"anyOf": [schema, {"type": "null"}]}, st.one_of(scalars, inner)),
        st.builds(lambda schema: {"anyOf": [schema, {"type": "null"}], "default": None}, st.one_of(scalars, inner)),
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def instances(draw: st.DrawFn, schema: Any) -> Any:
    """An instance of a schema."""
    match schema:
        case {"anyOf": [inner, {"type": "null"}]}:
            return draw(st.one_of(st.none(), instances(inner)))
        case {"enum": values}:
            return draw(st.sampled_from(values))
        case {"const": value}:
            return value
        case {"oneOf": choices}:
            return draw(st.one_of([instances(each) for each in choices]))
        case {"type": [*types]}:
            return draw(instances({"type": draw(st.sampled_from(types))}))
        case {"type": "string"}:
            return draw(TEXT)
        case {"type": "integer"}:
            return draw(st.integers(-(2**63), 2**63 - 1) if len(schema) == 1 else st.integers(-5, 5))
        case {"type": "number"}:
            return draw(NUMBERS)
        case {"type": "boolean"}:
            return draw(st.booleans())
        case {"type": "array", **rest}:
            items = instances(rest["items"]) if "items" in rest else VALUES
            return draw(st.lists(items, min_size=rest.get("minItems", 0), max_size=3))
        case {"type": "object", "properties": properties}:
            return {
                name: draw(instances(inner))
                for name, inner in properties.items()
                if name in schema.get("required", ()) or draw(st.booleans())
            }
        case {"type": "object", **rest}:
            values = instances(rest["additionalProperties"]) if "additionalProperties" in rest else VALUES
            return draw(st.dictionaries(TEXT, values, max_size=3))
    return draw(VALUES)


async def nothing(_: ToolCall) -> ToolOutcome:
    raise AssertionError("the tool is run")


def tool(
    arguments: dict[str, Any], result: dict[str, Any] | None = None, name: str = "tools.acme.support.classify"
) -> ToolSpec:
    """A tool that has these schemas."""
    return ToolSpec(
        name=name,
        title="Classify",
        description="Classifies a ticket.",
        permission="view",
        input_schema=arguments,
        output_schema=result or {"type": "object", "properties": {"text": {"type": "string"}}},
        run=nothing,
    )


def properties(required: tuple[str, ...] = (), **schemas: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": schemas, "required": list(required), "additionalProperties": False}
