"""What is expected of outputs: each property by a table, and by properties that hold for all outputs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from agenta_ai_server.tools.cases import json_expectation, json_matching
from agenta_ai_server.tools.cases.arguments import Expected
from agenta_ai_server.tools.cases.expectations import MAX_PATTERN_CHARACTERS, Expectation, ExpectationError

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json


def faults(output: str, **expected: Any) -> list[str]:
    expectation = Expectation(Expected(**expected))
    of_text = expectation.faults(output)
    return [*of_text, *json_expectation.faults(expectation.of_json, output)] if expectation.of_json else of_text


@pytest.mark.parametrize(
    ("expected", "output", "wrong"),
    [
        ({"equals": "billing"}, " billing\n", []),
        ({"equals": "billing"}, "Billing", ['Must be "billing".']),
        ({"contains_all": ["a", "b"]}, "cab", []),
        ({"contains_all": ["a", "b"]}, "ca", ['Must contain "b".']),
        ({"contains_any": ["a", "b"]}, "b", []),
        ({"contains_any": ["a", "b"]}, "c", ['Must contain one of "a", "b".']),
        ({"contains_none": ["a", "b"]}, "c", []),
        ({"contains_none": ["a", "b"]}, "ab", ['Must not contain "a".', 'Must not contain "b".']),
        ({"pattern": r"\d{3}-\d{4}"}, "Call 555-1234.", []),
        ({"pattern": r"^\d+$"}, "1 2", ['Must match the pattern "^\\d+$".']),
        ({"pattern": "(?i)yes"}, "YES", []),
        ({"max_characters": 3}, "äöü", []),
        ({"max_characters": 3}, "äöüß", ["Must have at most 3 characters, and has 4."]),
        ({"json_equals": {"a": [1, None]}}, '```json\n{"a": [1.0, null]}\n```', []),
        ({"json_equals": None}, "null", []),
        ({"json_equals": None}, "0", ["Must equal null as JSON."]),
        ({"json_equals": 1}, "true", ["Must equal 1 as JSON."]),
        ({"json_equals": {"a": 1}}, '{"a": 1, "b": 2}', ['Must equal {"a": 1} as JSON.']),
        ({"json_contains": {"a": {"b": 1}}}, '{"a": {"b": 1, "c": 2}, "d": 3}', []),
        ({"json_contains": [2, 1]}, "[1, 2, 3]", []),
        ({"json_contains": [4]}, "[1, 2, 3]", ["Must contain [4] as JSON."]),
        ({"json_contains": {"a": 1}}, "Sure: {}", ["Must be JSON, and nothing else."]),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', []),
        ({"json_schema": {"type": "object", "required": ["a"]}}, "{}", ["a: Required, and missing."]),
        ({"json_schema": {"type": "object"}}, "[]", ["Must be of type object."]),
        (
            {"contains_all": ["a"], "max_characters": 1},
            "bb",
            ['Must contain "a".', "Must have at most 1 characters, and has 2."],
        ),
    ],
)
def test_each_property(expected: dict[str, Any], output: str, wrong: list[str]) -> None:
    assert faults(output, **expected) == wrong


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        ({"json_schema": {"type": "nothing"}}, "json_schema.type"),
        ({"json_schema": {"properties": {f"{n}": {"pattern": "a"} for n in range(21)}}}, "json_schema"),
        ({"json_schema": {"not": {"patternProperties": {f"{n}": True for n in range(21)}}}}, "json_schema"),
        ({"json_schema": {"patternProperties": 5}}, "json_schema.patternProperties"),
        ({"json_schema": {"$ref": "https://example.com/schema"}}, "json_schema.$ref"),
        ({"json_equals": [0] * 2000}, "json_equals"),
        ({"json_contains": [0] * 2000}, "json_contains"),
    ],
)
def test_what_cannot_be_checked_is_refused(expected: dict[str, Any], field: str) -> None:
    violations = json_expectation.violations(Expectation(Expected(**expected)).of_json)
    assert [violation.field for violation in violations] == [field]


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(a)\1", "(a?){500}a{500}"])
def test_a_pattern_that_cannot_be_matched_is_refused(pattern: str) -> None:
    with pytest.raises(ExpectationError) as refused:
        Expectation(Expected(pattern=pattern))
    assert refused.value.violation.field == "pattern"


@pytest.mark.parametrize("nothing", [{}, {"equals": None}, {"pattern": None, "max_characters": None}])
def test_something_must_be_expected(nothing: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Expected(**nothing)


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*b", "(a+)+$b", "(x+x+)+y", "(a|aa)+$c", "(a|a?)+b", "([a-z]+)*0", r"(.*)*\d", "a{0,400}" + "a{400}z"],
)
@pytest.mark.parametrize("output", ["a" * MAX_PATTERN_CHARACTERS, "ax" * (MAX_PATTERN_CHARACTERS // 2)])
def test_patterns_cannot_hang(pattern: str, output: str) -> None:
    # A matcher that tries one way after the other takes longer than the universe has existed.
    assert len(faults(output, pattern=pattern)) == 1


def test_patterns_are_matched_in_outputs_of_bounded_length() -> None:
    (wrong,) = faults("a" * (MAX_PATTERN_CHARACTERS + 1), pattern="a")
    assert wrong == "Must have at most 10,000 characters, because a pattern of this size is matched."
    # A large pattern takes longer for each of them.
    (wrong,) = faults("a" * 9_000, pattern=r"(a?){150}a{150}")
    assert re.fullmatch(r"Must have at most [5-8],\d{3} characters, because .*", wrong)


def test_a_comparison_is_given_up_before_it_takes_long() -> None:
    lists = [[index] for index in range(4_000)]
    (wrong,) = faults(json.dumps(lists), json_contains=lists[:-401:-1])
    assert wrong == "Can't be checked: comparing the output takes more than 200,000 steps."


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def canonical(value: Json) -> object:
    """A value that Python compares as JSON does."""
    match value:
        case dict():
            return "object", frozenset((key, canonical(item)) for key, item in value.items())
        case list():
            return "list", tuple(map(canonical, value))
        case bool():
            return "bool", value
    return "scalar", value


def contained(actual: Json, expected: Json) -> bool:
    """PostgreSQL's containment of jsonb, in the words of its manual."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(k in actual and contained(actual[k], v) for k, v in expected.items())
    if isinstance(expected, list):
        return isinstance(actual, list) and all(any(contained(a, e) for a in actual) for e in expected)
    return canonical(actual) == canonical(expected)


@given(VALUES, VALUES)
def test_json_equality_is_that_of_json(actual: Json, expected: Json) -> None:
    assert (faults(json.dumps(actual), json_equals=expected) == []) == (canonical(actual) == canonical(expected))


@given(VALUES)
def test_a_value_equals_and_contains_itself_in_any_layout(value: Json) -> None:
    for layout in (json.dumps(value, indent=3), json.dumps(value, sort_keys=True)):
        assert faults(layout, json_equals=value, json_contains=value) == []


@given(VALUES, VALUES)
def test_containment_is_that_of_postgresql(actual: Json, expected: Json) -> None:
    assert json_matching.contains(actual, expected) == contained(actual, expected)


@given(
    st.dictionaries(st.text("ab", max_size=2), VALUES, max_size=3),
    st.dictionaries(st.text("cd", min_size=1, max_size=2), VALUES),
)
def test_more_keys_take_nothing_from_what_is_contained(value: dict[str, Json], more: dict[str, Json]) -> None:
    assert json_matching.contains(value | more, value)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_containing_texts(output: str, texts: list[str]) -> None:
    held = [text in output for text in texts]
    assert (faults(output, contains_all=texts) == []) == all(held)
    assert (faults(output, contains_any=texts) == []) == any(held)
    assert (faults(output, contains_none=texts) == []) == (not any(held))


@given(TEXTS, TEXTS)
def test_equality_and_length(output: str, text: str) -> None:
    assert (faults(output, equals=text) == []) == (output.strip() == text.strip())
    assert (faults(output, max_characters=len(text)) == []) == (len(output) <= len(text))


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]"]),
    lambda inner: (
        st.builds("({})*".format, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("{}{}".format, inner, inner)
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text("abc", max_size=12), st.booleans())
def test_patterns_mean_what_they_mean_elsewhere(pattern: str, output: str, whole: bool) -> None:
    pattern = f"^(?:{pattern})$" if whole else pattern
    assert (faults(output, pattern=pattern) == []) == (re.search(pattern, output) is not None)


SCHEMAS = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "array", "string", "integer"])},
    optional={
        "required": st.just(["a"]),
        "minItems": st.integers(0, 2),
        "maxLength": st.integers(0, 2),
        "minimum": st.integers(-1, 1),
    },
)


@given(SCHEMAS, VALUES)
def test_schemas_mean_what_they_mean_elsewhere(schema: dict[str, Any], value: Json) -> None:
    assert (faults(json.dumps(value), json_schema=schema) == []) == Draft202012Validator(schema).is_valid(value)


SLOW = {"format": "idn-hostname"}


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        ({"items": {"pattern": "a"}}, 60_000),
        ({"items": {"allOf": [SLOW] * 45}}, 1_333),
        ({"items": {"allOf": [{"$ref": "#/$defs/a"}] * 11}, "$defs": {"a": {"not": {"pattern": "a"}}}}, 5_454),
        ({"allOf": [{"$ref": "#/$defs/a"}] * 11, "$defs": {"a": {"patternProperties": {"a": True}}}}, 5_454),
        ({"patternProperties": {"a": SLOW, "b": SLOW, "c": {"pattern": "a"}}}, 20_000),
    ],
)
def test_long_json_is_not_matched_with_many_patterns(schema: dict[str, Any], most: int) -> None:
    (fault,) = faults(json.dumps(["b" * (most - 3)]), json_schema=schema)
    assert fault == f"Must have at most {most:,} characters, because its schema has patterns."
    assert "characters, because" not in str(faults(json.dumps(["b" * (most - 4)]), json_schema=schema))


@given(st.text(max_size=40), st.sampled_from(["json_schema", "json_equals", "json_contains"]))
def test_no_output_is_a_bug(output: str, name: str) -> None:
    assert len(faults(output, **{name: {"type": "object", "required": ["a"]}})) == 1
