"""From JSON to a message and back: nothing is lost, and what can't be held is refused with its place."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed.schemas import CALM, instances, objects, properties, tool

from agenta_ai.codec import CodecError, from_struct, to_struct
from agenta_ai_server.typed.generation import Generation, TypedMethod
from agenta_ai_server.typed.lock import Lock, updated
from agenta_ai_server.typed.tools import shapes


def method(schema: dict[str, Any]) -> TypedMethod:
    specs = [tool(schema, schema)]
    found, faults = shapes(specs)
    assert not faults
    generation = Generation(specs, updated(Lock(), found))
    assert not generation.faults
    return next(iter(generation.methods.values()))


@st.composite
def schemas_and_instances(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    schema = draw(objects())
    return schema, draw(instances(schema))


@CALM
@given(schemas_and_instances())
def test_message_to_json_to_message_loses_nothing(case: tuple[dict[str, Any], Any]) -> None:
    schema, instance = case
    codec = method(schema)
    first, second = codec.request(), codec.request()
    codec.arguments.write(first.arguments, instance)
    read = codec.arguments.read(type(first).FromString(first.SerializeToString()).arguments)
    jsonschema.validate(read, schema)
    codec.arguments.write(second.arguments, read)
    assert first == second
    assert without_defaults(read, schema) == without_defaults(instance, schema)


def without_defaults(value: Any, schema: Any) -> Any:
    """What an instance says, whichever of two ways it says it in: absent, or the default null or the empty array."""
    match schema:
        case {"anyOf": [inner, _]}:
            return without_defaults(value, inner)
        case {"properties": known} if isinstance(value, dict):
            shown = {name: without_defaults(item, known[name]) for name, item in value.items()}
            required = schema["required"]
            return {name: item for name, item in shown.items() if name in required or item != meant(known[name])}
        case {"items": inner} if isinstance(value, list):
            return [without_defaults(item, inner) for item in value]
    return value


def meant(schema: Any) -> Any:
    """What it means that an optional property is absent."""
    match schema:
        case {"anyOf": _, "default": None}:
            return None
        case {"type": "array"} if "minItems" not in schema:
            return []
    return object()


INTEGER = properties(
    number={"type": "integer"}, inner=properties(numbers={"type": "array", "items": {"type": "integer"}})
)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0])
def test_integers_beyond_doubles_survive(number: int) -> None:
    codec = method(INTEGER)
    request = codec.request()
    codec.arguments.write(request.arguments, {"number": number, "inner": {"numbers": [number]}})
    read = codec.arguments.read(type(request).FromString(request.SerializeToString()).arguments)
    assert read == {"number": number, "inner": {"numbers": [number]}}


@pytest.mark.parametrize(
    ("schema", "values", "path", "problem"),
    [
        (INTEGER, {"number": 2**63}, ".number", "beyond 64 bits"),
        (INTEGER, {"inner": {"numbers": [0, -(2**63) - 1]}}, ".inner.numbers[1]", "beyond 64 bits"),
        (INTEGER, {"number": 1.5}, ".number", "of the type int64"),
        (INTEGER, {"number": float("inf")}, ".number", "of the type int64"),
        (INTEGER, {"number": True}, ".number", "of the type int64"),
        (properties(x={"type": "number"}), {"x": float("nan")}, ".x", "finite"),
        (properties(x={"type": "number"}), {"x": 10**400}, ".x", "too large"),
        (properties(x={"type": "string"}), {"x": "\ud800"}, ".x", "surrogate"),
        (properties(x={"type": "string"}), {"x": None}, ".x", "of the type string"),
        (properties(x={}), {"x": {"y": [float("inf")]}}, ".x.y[0]", "not a JSON value"),
        (properties(x=properties(y={"type": "string"})), {"x": []}, ".x", "an object"),
        (properties(x={"type": "array", "items": {"type": "string"}}), {"x": "y"}, ".x", "an array"),
    ],
)
def test_what_protobuf_cannot_hold_is_refused_with_its_place(
    schema: dict[str, Any], values: dict[str, Any], path: str, problem: str
) -> None:
    codec = method(schema)
    with pytest.raises(CodecError, match=problem) as raised:
        codec.arguments.write(codec.request().arguments, values)
    assert raised.value.path == path


def test_a_message_with_what_json_lacks_is_refused_with_its_place() -> None:
    codec = method(properties(x=properties(y={"type": "array", "items": {"type": "number"}})))
    request = codec.request()
    request.arguments.x.y.extend([1.0, float("nan")])
    with pytest.raises(CodecError, match="finite") as raised:
        codec.arguments.read(request.arguments)
    assert raised.value.path == ".x.y[1]"


LISTS = {"type": "array", "items": {"type": "string"}}
TABLE = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    "values",
    [
        {"x": ["a", "b"], "y": {"z": [1, 2]}},
        {"x": [], "many": [{"x": [], "t": {}, "n": None}, {"x": ["a"], "t": {"b": 1}, "n": "c"}]},
    ],
)
def test_values_are_counted_as_in_a_struct(values: dict[str, Any]) -> None:
    inner = properties(("x", "t", "n"), x=LISTS, t=TABLE, n={"type": ["string", "null"]})
    codec = method(properties(("x",), x=LISTS, y={}, many={"type": "array", "items": inner}))
    request = codec.request()
    codec.arguments.write(request.arguments, values)
    count = next(most for most in range(100) if _fits(values, most))
    assert codec.arguments.read(request.arguments, count) == values
    with pytest.raises(CodecError, match="Too many values"):
        codec.arguments.read(request.arguments, count - 1)


def _fits(values: dict[str, Any], most: int) -> bool:
    try:
        return from_struct(to_struct(values), max_values=most) == values
    except CodecError:
        return False


def test_keys_without_a_field_stay_in_the_generic_result() -> None:
    codec = method({"type": "object", "properties": {"known": {"type": "string"}}})
    response = codec.response()
    codec.result.write(response.result, {"known": "a", "other": "b"})
    assert codec.result.read(response.result) == {"known": "a"}


def test_a_missing_argument_is_told_from_an_empty_one() -> None:
    codec = method(properties(("x",), x={"type": "string"}, y={"type": "integer"}))
    request = codec.request()
    assert codec.arguments.read(request.arguments) == {}
    request.arguments.x = ""
    request.arguments.y = 0
    assert codec.arguments.read(request.arguments) == {"x": "", "y": 0}
