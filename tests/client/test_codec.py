"""Between Python's values and Struct."""

from __future__ import annotations

import math
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai.codec import CodecError, fill, from_struct, from_value, to_struct

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_what_goes_in_comes_out(fields: dict[str, Any]) -> None:
    struct = to_struct(fields)
    assert from_struct(Struct.FromString(struct.SerializeToString())) == fields
    # protobuf's own converter agrees, but for integers.
    assert MessageToDict(struct) == fields


def test_integers_come_back_as_integers() -> None:
    result = from_struct(to_struct({"i": 3, "f": 3.0, "half": 1.5, "big": 2**53, "beyond": 1e300}))
    types = {key: type(value) for key, value in result.items()}
    assert types == {"i": int, "f": int, "half": float, "big": int, "beyond": float}


@pytest.mark.parametrize(
    "fields",
    [MappingProxyType({"a": (1, 2)}), OrderedDict(a=[1, 2]), {"a": MappingProxyType({"b": ()})}],
    ids=["proxy", "ordered", "nested"],
)
def test_other_mappings_and_tuples(fields: Any) -> None:
    assert MessageToDict(to_struct(fields)) == {"a": [1, 2]} or fields["a"] == {"b": ()}


def test_an_empty_object_and_an_empty_list_are_kept() -> None:
    assert from_struct(to_struct({"o": {}, "l": [], "n": None})) == {"o": {}, "l": [], "n": None}
    assert from_value(Value()) is None


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ({"a": [{}, {"b": math.nan}]}, ".a[1].b", "nan is not a JSON value."),
        ([math.inf], "[0]", "inf is not a JSON value."),
        ({"a": 2**53 + 1}, ".a", "An integer beyond 2**53 would lose digits. Send it as a string."),
        ({"a": {1, 2}}, ".a", "A set is not a JSON value."),
        ({"a": b""}, ".a", "A bytes is not a JSON value."),
        ({"a": {2: 1}}, ".a", "The key '2' is not text."),
        ({"a": {"\ud800": 1}}, ".a", "The key '\\ud800' is not text."),
        ({"a": "x\ud800"}, ".a", "Character 1 is half of a surrogate pair, not text."),
        (deep(33), "[0]" * 32, "Is nested too deeply. Send it as a string that contains JSON."),
        ({"k" * 200: math.nan}, "." + "k" * 100, "nan is not a JSON value."),
        (math.nan, "", "nan is not a JSON value."),
    ],
)
def test_what_cannot_be_sent(value: Any, path: str, problem: str) -> None:
    with pytest.raises(CodecError) as failure:
        fill(Value(), value)
    assert (failure.value.path, failure.value.problem) == (path, problem)
    assert str(failure.value) == (f"{path.removeprefix('.')}: {problem}" if path else problem)


def test_integers_may_lose_digits_where_that_is_documented() -> None:
    assert from_struct(to_struct({"a": 2**53 + 1}, exact=False)) == {"a": 2**53}
    with pytest.raises(CodecError, match="too large for a double"):
        to_struct({"a": 10**400}, exact=False)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_have_is_not_read(number: float) -> None:
    struct = Struct()
    struct["a"] = {"b": [0, number]}
    with pytest.raises(CodecError, match=r"^a\.b\[1\]: Must be a finite number"):
        from_struct(struct)


def test_the_number_of_values_is_bounded() -> None:
    struct = to_struct({"a": [1, 2, 3]})
    assert from_struct(struct, max_values=4) == {"a": [1, 2, 3]}
    with pytest.raises(CodecError, match=r"^a\[2\]: Too many values \(maximum 3\)\.$"):
        from_struct(struct, max_values=3)
