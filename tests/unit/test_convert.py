from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.rpc.convert import from_struct, to_struct

VALUES: dict[str, Any] = {
    "null": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "negative": -7,
    "large": 2**53,
    "fraction": 0.1,
    "empty": "",
    "text": "ü\u2028😀",
    "list": [1, [], {}, [None, {"x": [True]}]],
    "object": {"": {"a": {"b": "c"}}},
}


def test_there_and_back() -> None:
    struct = to_struct(VALUES)
    assert json_format.MessageToDict(struct) == VALUES
    back = from_struct(struct, "arguments")
    assert back == VALUES
    assert json.dumps(back, sort_keys=True) == json.dumps(VALUES, sort_keys=True), "integers stay integers"


def test_a_value_without_a_kind_is_null() -> None:
    assert from_struct(Struct(fields={"a": Value()}), "arguments") == {"a": None}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have(number: float) -> None:
    struct = to_struct({"a": [{"b": number}]})
    with pytest.raises(Refused) as refused:
        from_struct(struct, "arguments")
    assert refused.value.violations[0].field == "arguments.a[0].b"


def test_a_long_key_is_not_copied_for_each_of_many_values() -> None:
    values: list[Any] = [None] * 9_998
    assert from_struct(to_struct({"k" * 500_000: values}), "arguments") == {"k" * 500_000: values}
    with pytest.raises(Refused) as refused:
        from_struct(to_struct({"k" * 500_000: [*values, float("nan")]}), "arguments")
    assert refused.value.violations[0].field == f"arguments.{'k' * 100}[9998]"


@pytest.mark.parametrize("many", [[{}] * 10_000, {"x": [[]] * 10_000}])
def test_too_many_values_are_refused_before_they_are_all_read(many: Any) -> None:
    with pytest.raises(Refused) as refused:
        from_struct(to_struct({"a": many}), "arguments")
    (violation,) = refused.value.violations
    assert violation.field.startswith("arguments.a")
    assert violation.description == "Too many values (maximum 10,000)."


def test_beyond_2_to_the_53_a_number_stays_a_double() -> None:
    assert isinstance(from_struct(to_struct({"a": 2.0**60}), "x")["a"], float)
    assert to_struct({"a": 2**53}).fields["a"].number_value == 2**53
