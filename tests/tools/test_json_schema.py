"""Values checked by schemas: what a second library says of them, and what no schema may do to the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agenta_ai_server.standin.instances import instance
from agenta_ai_server.tools.json_schema.schema import MAX_PATTERN_CHARACTERS, Schema, SchemaError
from agenta_ai_server.tools.json_schema.values import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jsonschema.exceptions import ValidationError

NAMES = st.sampled_from(["a", "b", "c d", "é"])
SCALARS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]+$"},
    {"enum": ["x", "y", 1, None]},
    {"const": 3},
    {"type": "integer", "minimum": 2, "exclusiveMaximum": 7},
    {"type": "number", "multipleOf": 0.5},
    {"type": ["string", "null"]},
    {"type": "boolean"},
    {},
    {"$ref": "#/$defs/short"},
]
DEFINITIONS = {"short": {"type": "string", "maxLength": 3}, "node": {"type": "object"}}


def _combined(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.builds(
        lambda properties, required, extra: {
            "type": "object",
            "properties": properties,
            "required": sorted(required),
            **({} if extra is None else {"additionalProperties": extra}),
        },
        st.dictionaries(NAMES, inner, max_size=3),
        st.sets(NAMES, max_size=2),
        st.sampled_from([None, False]) | inner,
    )
    arrays = st.builds(
        lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 2},
        inner,
        st.integers(0, 2),
    )
    either = st.lists(inner, min_size=1, max_size=2).map(lambda schemas: {"anyOf": schemas})
    both = st.lists(inner, min_size=1, max_size=2).map(lambda schemas: {"allOf": schemas})
    return objects | arrays | either | both


SCHEMAS = st.recursive(st.sampled_from(SCALARS), _combined, max_leaves=5).map(
    lambda each: {**each, "$defs": DEFINITIONS}
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from([0.5, 2.5, 1.0]) | st.text("abx", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def changed(value: Any) -> st.SearchStrategy[Any]:
    """The value as it is, or with another one in some place of it."""
    inner: st.SearchStrategy[Any] = st.nothing()
    if isinstance(value, dict):
        for key, item in value.items():
            inner |= st.builds(lambda name, other: {**value, name: other}, st.just(key), changed(item))
            inner |= st.just({name: kept for name, kept in value.items() if name != key})
        inner |= VALUES.map(lambda other: {**value, "more": other})
    elif isinstance(value, list) and value:
        inner |= changed(value[0]).map(lambda other: [other, *value[1:]])
        inner |= st.just([*value, *value])
    return st.just(value) | VALUES | inner


def expected_paths(error: ValidationError) -> Iterator[str]:
    """The paths that our violations have for an error of the other library."""
    steps = list(error.absolute_path)
    value: Any = error.instance
    if error.validator == "required":
        required: Any = error.validator_value
        for name in required:
            if name not in value:
                yield path_of("v", [*steps, name])
    elif error.validator == "additionalProperties" and error.validator_value is False:
        for name in value:
            if isinstance(error.schema, dict) and name not in error.schema.get("properties", {}):
                yield path_of("v", [*steps, name])
    else:
        yield path_of("v", steps)


@given(st.data())
def test_as_a_second_library_says(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    compiled, oracle = Schema(schema), Draft202012Validator(schema)
    value = data.draw(st.just(instance(schema)).flatmap(changed) | VALUES)
    violations = compiled.violations(value, "v")
    assert oracle.is_valid(value) is (not violations)
    paths = {path for error in oracle.iter_errors(value) for path in expected_paths(error)}
    assume(len(paths) < 10)
    assert {violation.field for violation in violations} == paths


@given(SCHEMAS)
def test_the_stand_in_gives_the_same_instance_each_time(schema: dict[str, Any]) -> None:
    assert instance(schema) == instance(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "exclusiveMinimum": 3}}},
        {"type": "array", "minItems": 3, "items": {"type": "string", "minLength": 20}},
        {"type": "array", "prefixItems": [{"const": 1}, {"type": "null"}], "items": False, "minItems": 2},
        {"type": "number", "multipleOf": 7, "minimum": 15},
        {"type": "number", "minimum": 0, "maximum": 0.3},
        {"type": "integer", "maximum": -5},
        {"type": "string", "format": "date-time"},
        {"type": ["null", "boolean"]},
        {"oneOf": [{"type": "object", "required": ["x"], "properties": {"x": {"enum": ["q"]}}}, {"type": "null"}]},
        {"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}], "type": "object"},
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"left": {"$ref": "#/$defs/tree"}}}}},
    ],
)
def test_instances_are_valid(schema: dict[str, Any]) -> None:
    assert Schema(schema).violations(instance(schema), "") == []


def doubling(levels: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(levels):
        twice = {"$ref": f"#/$defs/d{level}"}
        definitions[f"d{level + 1}"] = {"allOf": [twice, twice]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{levels}"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


BRANCHING = {"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"properties": {"x": {"$ref": "#/$defs/n"}}}] * 2}}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (doubling(30), "more than 50 subschemas apply to one place"),
        (BRANCHING, "more than 50 subschemas apply to one place"),
        ({"allOf": [{"$ref": "#"}]}, "or one refers to itself"),
        ({"anyOf": [{"type": "string", "maxLength": n} for n in range(60)]}, "more than 50 subschemas"),
        (nested(20), "is nested more than 28 levels deep"),
        ({"enum": ["x" * 1000] * 100}, "bytes as JSON, more than the maximum of 65,536"),
        ({"items": {"enum": [*range(501), "x"]}}, "more than 500 entries"),
        ({"items": {"dependentRequired": {f"k{n}": [] for n in range(501)}}}, "more than 500 entries"),
        ({"pattern": "(a{1,100}){1,100}{1,100}"}, "must be a regular expression that is matched in linear time"),
        ({"patternProperties": {"(?<=a)b": {}}}, "must be a regular expression that is matched in linear time"),
        ({"$dynamicRef": "#x"}, "isn't supported"),
        ({"properties": {"a": {"$id": "http://127.0.0.1/"}}}, "only at the top of the schema"),
        ({"$ref": "#/enum/0", "enum": [{"type": "string"}]}, "isn't a subschema"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "must be https://json-schema.org/draft/2020-12/schema",
        ),
    ],
)
def test_what_could_make_the_server_slow_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        Schema(schema)


def test_large_schemas_are_checked_quickly() -> None:
    """Every subschema applies to places of every depth, and takes 101 steps if depths aren't compared."""
    properties: dict[str, Any] = {f"p{number}": {"allOf": [{"$ref": "#"}]} for number in range(1_800)}
    began = time.thread_time()
    assert Schema({"properties": properties, "uniqueItems": True}).violations({"p7": [1, 1]}, "v")
    chain: dict[str, Any] = {f"a{number}": {"$ref": f"#/$defs/a{number + 1}"} for number in range(2_000)}
    with pytest.raises(SchemaError, match="more than 50 subschemas"):
        Schema({"$ref": "#/$defs/a0", "$defs": {**chain, "a2000": {}}})
    assert time.thread_time() - began < 3


def test_all_faults_are_found_at_once() -> None:
    wrong: dict[str, Any] = {
        "properties": {
            "a": {"type": "strin"},
            "b": {"$ref": "https://example.com/b.json"},
            "c": {"pattern": "(?<=x)y"},
            "d": {"pattern": 3, "patternProperties": {"(": {}}},
            "e": {"$ref": 3, "patternProperties": ["("]},
        }
    }
    with pytest.raises(SchemaError) as error:
        Schema(wrong)
    assert sorted(".".join(map(str, path)) for path, _ in error.value.faults) == [
        "properties.a.type",
        "properties.b.$ref",
        "properties.c.pattern",
        "properties.d.pattern",
        "properties.d.patternProperties.(",
        "properties.e.$ref",
        "properties.e.patternProperties",
    ]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(3), 1),
        ({"type": "array", "allOf": [{"items": {"minimum": n}} for n in range(45)]}, [0] * 9_999),
        ({"pattern": "^(a+)+$"}, "a" * 500_000 + "b"),
        ({"format": "regex"}, "(" * 1_000_000),
        ({"items": {"pattern": "[ab]*a[ab]{100}c"}}, ["ab" * 4_000] * 100),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, [1] * 9_999),
        ({"additionalProperties": {"type": "string"}}, {f"k{n}": n for n in range(9_999)}),
        ({"items": {"$ref": "#"}, "type": "array"}, [[[[[1]]]]] * 2_000),
        # Near to the same double: the library's hash is the same for all of them.
        ({"uniqueItems": True}, [10**29 + number for number in range(9_999)]),
        ({"uniqueItems": True}, [{"a": [10**299 + number]} for number in range(1_300)]),
        ({"items": {"multipleOf": 0.5, "maximum": 0}}, [10**299] * 9_999),
    ],
)
def test_what_is_within_the_bounds_is_quick(schema: dict[str, Any], value: Any) -> None:
    # By the time-out of all tests: without the bounds, each of these takes minutes.
    assert 1 <= len(Schema(schema).violations(value, "v")) <= 10


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        ({"uniqueItems": True}, [2**53 - 1, 2**53], True),
        ({"uniqueItems": True}, [2**53, 2**53 + 1], False),
        ({"uniqueItems": True}, [True, 1], True),
        ({"type": "integer", "minimum": 0}, 10**400, True),
        ({"type": "integer", "maximum": 0}, -(10**400), True),
        ({"const": 2**53}, 2**53 + 1, True),
    ],
)
def test_large_integers_are_what_callers_read(schema: dict[str, Any], value: Any, valid: bool) -> None:
    assert (not Schema(schema).violations(value, "v")) is valid


@pytest.mark.parametrize(
    ("schema", "value", "most"),
    [
        # The library takes up to 25 µs for each pair of numbers, while all other threads wait.
        ({"items": {"enum": [*range(5_000)]}}, [1.5] * 9_999, 5),
        ({"items": {"enum": [*range(5_000)]}}, [1e-300], 5),
        ({"items": {"enum": [number + 0.5 for number in range(500)]}}, [7] * 9_999, 50),
        ({"items": {"allOf": [{"multipleOf": 0.01} for _ in range(45)]}}, [1.5] * 9_999, 555),
        ({"items": {"allOf": [{"minimum": 0, "maximum": 1e308} for _ in range(45)]}}, [1e300] * 9_999, 50),
        ({"items": {"multipleOf": 1e-300}}, [1.5] * 9_999, 2_500),
        ({"items": {"uniqueItems": True}}, [[1e-300 * number for number in range(1, 16)]] * 600, 3_571),
        ({"items": {"const": {"a": [0.5] * 1_000}}}, [{"a": [0.5] * 1_000}] * 9, 25),
        (
            {"$defs": {"a": {"uniqueItems": True, "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            [[[0.5, 1.5], [2.5, 3.5]]] * 100,
            35,
        ),
        ({"items": {"minimum": 0.5, "maximum": 3.5, "multipleOf": 0.5}}, [1.5] * 8_334, 8_333),
    ],
)
def test_numbers_that_take_long_to_compare_are_refused(schema: dict[str, Any], value: Any, most: int) -> None:
    (violation,) = Schema(schema).violations(value, "v")
    assert violation.field == "v"
    assert violation.description.startswith(f"Must have at most {most:,} numbers,")


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        ({"items": {"enum": [*range(5_000)]}}, [4_999] * 9_999, True),
        ({"items": {"enum": [*range(5_000)]}}, [5_000], False),
        ({"items": {"enum": [*range(5_000)]}}, [1.5], False),
        ({"items": {"minimum": 0, "maximum": 1}}, [0.5] * 9_999, True),
        ({"items": {"multipleOf": 0.01, "minimum": 0}}, [0.25] * 9_999, True),
        ({"items": {"type": "boolean", "enum": [True, False]}}, [True] * 9_999, True),
        ({"type": "array", "uniqueItems": True}, [number + 0.5 for number in range(3_571)], True),
        ({"items": {"minimum": 0.5, "maximum": 3.5, "multipleOf": 0.5}}, [1.5] * 8_333, True),
    ],
)
def test_other_numbers_are_checked(schema: dict[str, Any], value: Any, valid: bool) -> None:
    found = Schema(schema).violations(value, "v")
    assert not any("numbers" in violation.description for violation in found)
    assert (not found) is valid


def deep(levels: int, innermost: Any) -> Any:
    return {"more": deep(levels - 1, innermost)} if levels else innermost


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    "innermost",
    [{"x": {f"{'k' * 90}{n}": n for n in range(9_900)}}, {"x": ["x" * 990_000]}, {"x": ["x"] * 9_900}],
    ids=["keys", "text", "items"],
)
def test_what_fits_no_alternative_is_told_quickly(keyword: str, innermost: Any) -> None:
    node: dict[str, Any] = {"type": "object", "required": ["more"], "properties": {"more": {"$ref": "#/$defs/either"}}}
    either: dict[str, Any] = {keyword: [{"type": "integer"}, node]}
    schema = Schema({"$defs": {"either": either}, "properties": {"more": {"$ref": "#/$defs/either"}}})
    value = deep(29, innermost)
    assert [violation.field for violation in schema.violations(value, "v")] == ["v.more"]
    # The library's own account of it takes half a second and 600 MiB.
    assert min(cpu_seconds(lambda: schema.violations(value, "v")) for _ in range(3)) < 0.1


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_references_into_alternatives_are_followed() -> None:
    schema = Schema(
        {
            "properties": {
                "a/b ~%é": {"anyOf": [{"type": "integer", "oneOf": [{"minimum": 3}]}, {"type": "null"}]},
                "c": {"$ref": "#/properties/a~1b ~0%é/anyOf/0"},
                "d": {"$ref": "#/properties/a~1b ~0%é/anyOf/0/oneOf/0"},
            }
        }
    )
    assert not schema.violations({"a/b ~%é": None, "c": 3, "d": 3.5}, "v")
    assert [violation.field for violation in schema.violations({"c": None, "d": 2}, "v")] == ["v.c", "v.d"]


def test_alternatives_say_what_they_describe() -> None:
    either: dict[str, Any] = {
        "anyOf": [{"properties": {"a": True}}, {"properties": {"b": True}}],
        "oneOf": [{"properties": {"c": {}}}],
    }
    schema = Schema({**either, "unevaluatedProperties": False})
    assert not schema.violations({"a": 1, "b": 2, "c": 3}, "v")
    assert [violation.field for violation in schema.violations({"a": 1, "d": 4}, "v")] == ["v.d"]


@pytest.mark.parametrize("slow", [{"pattern": "^a*$"}, {"format": "regex"}, {"format": "idn-hostname"}], ids=str)
def test_what_takes_long_is_matched_with_short_strings_only(slow: dict[str, Any]) -> None:
    schema = Schema({"type": "object", "properties": {"a": slow, "b": {"type": "string"}}})
    assert not schema.violations({"a": "a" * 63, "b": "b" * 100_000}, "v")
    (violation,) = schema.violations({"a": "a" * (MAX_PATTERN_CHARACTERS + 1)}, "v")
    assert (violation.field, violation.description) == ("v.a", "Must have at most 10,000 characters.")


def test_keys_are_matched_if_they_are_short() -> None:
    schema = Schema({"patternProperties": {"[ab]*a[ab]{100}c": False}})
    assert not schema.violations([{"ab" * 500: 1}], "v")
    (violation,) = schema.violations([{}, {"k": {"ab" * 500_000: 1}}], "v")
    assert violation.field == f"v[1].k.{'ab' * 50}"
    assert violation.description == "Must have keys of at most 1,000 characters."


def test_recursion_through_the_value_is_fine() -> None:
    tree: dict[str, Any] = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    (violation,) = Schema(tree).violations({"children": [{"children": [{"children": 1}]}]}, "v")
    assert violation.field == "v.children[0].children[0].children"


@pytest.mark.parametrize(
    ("schema", "value", "field", "description"),
    [
        ({"format": "date"}, "soon", "answer", "Must have the format date."),
        ({"properties": {"a": {"enum": ["x", 1]}}}, {"a": "y"}, "a", 'Must be one of "x", 1.'),
        ({"enum": ["x" * 300]}, "y", "answer", f'Must be one of "{"x" * 199}….'),
        ({"additionalProperties": False}, {"k" * 300: 1}, "k" * 100, "Unknown: the schema doesn't allow this key."),
        ({"required": ["a"]}, {}, "a", "Required, and missing."),
        ({"type": ["integer", "null"]}, "x", "answer", "Must be of type null or integer."),
        ({"minItems": 1}, [], "answer", "Must have at least 1 item."),
        ({"properties": {"a": False}}, {"a": 1}, "a", "Must be absent."),
        ({"propertyNames": {"maxLength": 1}}, {"long": 1}, "long", "Must have at most 1 character."),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "b", "Required, and missing."),
        ({"anyOf": [{"type": "null"}]}, 1, "answer", "Must match one of the schema's alternatives."),
        ({"oneOf": [True, True]}, 1, "answer", "Must match exactly one of the schema's alternatives."),
        ({"not": {"type": "integer"}}, 1, "answer", "Must not match the schema's not."),
        ({"format": "regex"}, "(", "answer", "Must have the format regex."),
        ({"items": {"multipleOf": 2}}, [2, 3], "[1]", "Must be a multiple of 2."),
    ],
)
def test_sentences(schema: dict[str, Any], value: Any, field: str, description: str) -> None:
    (violation,) = Schema(schema).violations(value, "")
    assert (violation.field, violation.description) == (field, description)
