"""Schemas within the mapping, instances of them, and tools that have them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.typed.names import InvalidName, field_name, json_name

if TYPE_CHECKING:
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall

# A busy machine takes its time.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from(
    [
        "a",
        "b2",
        "text",
        "due_date",
        "due-date",
        "dueDate",
        "x1_y2",
        "a1",
        "a_1",
        "ab",
        "aB",
        "isOK",
        "OKis",
        "foo-bar",
        "from",
        "class",
        "message",
        "string",
        "builder",
        "arguments",
        "result",
        "oneof",
        "reserved",
        "map",
        "outcome",
    ]
)
SCALARS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 0, "maxLength": 10},
    {"type": "string", "enum": ["billing", "", "a b"]},
    {"const": "fixed"},
    {"type": "integer"},
    {"enum": [1, 2**53]},
    {"type": "number", "description": "A number.\nOf two lines."},
    {"type": "boolean", "default": True},
]
# Where it has a field of its own: a Value holds doubles.
LARGE: dict[str, Any] = {"type": "integer", "format": "int64"}
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
def objects(draw: st.DrawFn, depth: int = 2, *, large: bool = True) -> dict[str, Any]:
    """The schema of an object with known properties; ``large``: with integers that are no doubles."""
    names = distinct(draw(st.lists(NAMES, min_size=1, max_size=5)))
    properties = {name: draw(schemas(depth, large=large)) for name in names or ["text"]}
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@cache
def schemas(depth: int, *, large: bool = True) -> st.SearchStrategy[Any]:
    scalars = st.sampled_from(SCALARS)
    single = st.sampled_from([*SCALARS, LARGE]) if large else scalars
    inner = objects(depth - 1, large=large) if depth else single
    maybe = st.one_of(scalars, objects(depth - 1, large=False)) if depth else scalars
    plain = st.one_of(
        single,
        st.sampled_from(FREE),
        inner,
        st.builds(lambda items: {"type": "array", "items": items}, st.one_of(single, inner)),
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1}, scalars),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, scalars),
    )
    return st.one_of(
        plain,
        st.builds(lambda schema: {"anyOf": [schema, {"type": "null"}]}, maybe),
        st.builds(lambda schema: {"anyOf": [schema, {"type": "null"}], "default": None}, maybe),
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
# Zero has no sign: it is read as an integer, as CallTool reads it, so that both are the same call.
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


OF_TYPES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "integer": st.integers(-(2**53), 2**53),
    "number": NUMBERS,
    "boolean": st.booleans(),
}


def instances(schema: Any) -> st.SearchStrategy[Any]:
    """The instances of a schema."""
    match schema:
        case {"anyOf": choices} | {"oneOf": choices}:
            return st.one_of([instances(each) for each in choices])
        case {"enum": values}:
            return st.sampled_from(values)
        case {"const": value}:
            return st.just(value)
        case {"type": "null"}:
            return st.none()
        case {"type": [*types]}:
            return st.one_of([instances({"type": each}) for each in types])
        case {"type": "array" | "object"}:
            return compounds(schema)
        case {"type": "integer", "format": "int64"}:
            return st.integers(-(2**63), 2**63 - 1)
        case {"type": str(name)}:
            return OF_TYPES[name]
    return VALUES


def compounds(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"type": "array"}:
            items = instances(schema["items"]) if "items" in schema else VALUES
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=3)
        case {"properties": known, "required": required}:
            each = {name: instances(inner) for name, inner in known.items()}
            optional = {name: inner for name, inner in each.items() if name not in required}
            return st.fixed_dictionaries({name: each[name] for name in required}, optional=optional)
    values = instances(schema["additionalProperties"]) if "additionalProperties" in schema else VALUES
    return st.dictionaries(TEXT, values, max_size=3)


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


def properties(required: tuple[str, ...] = (), /, **schemas: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": schemas, "required": list(required), "additionalProperties": False}
