from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agenta_ai_server.domain.values import has_more_values
from agenta_ai_server.tools.strict_json import MAX_DEPTH, TooManyValues, depth, dump, parse


@pytest.mark.parametrize(
    "text",
    ["null", '"é\u2028😀"', "[1,-0.5,1e300]", '{"a":{"b":[]},"":true}', '"\\ud83d\\ude00"', "[" * 100 + "]" * 100],
)
def test_what_is_read_is_written_the_same(text: str) -> None:
    assert parse(dump(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "isn't JSON: Expecting value at line 1, column 1"),
        ("{\n,}", "line 2, column 1"),
        ("{} {}", "isn't JSON"),
        ("'a'", "isn't JSON"),
        ("\ufeff{}", "byte order mark"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1e309", "1e309, which is too large"),
        ("-1e309", "too large"),
        ("1" * 5000, "5000 digits"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        ('{"x": {"\\u0061": 1, "a": 3}}', "the key 'a' twice"),
        ('"\\ud800"', "surrogate"),
        ('{"\\uDFFF": 1}', "surrogate"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels"),
        ("[" * 4_000 + "]" * 4_000, f"more than {MAX_DEPTH} levels"),
        ('{"a":' * 4_000 + "1" + "}" * 4_000, f"more than {MAX_DEPTH} levels"),
        ("[" * 100_000, "too many values"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["-0", "-0.0", "1e15", "1E5", "1.10", "0.12345678901234567890123", "1e-400", "12345678901234567890", "1e+2"],
)
def test_numbers_are_written_as_they_were_read(text: str) -> None:
    assert dump(parse(f"[{text}]")) == f"[{text}]"


def test_a_number_beyond_a_double_is_refused_whatever_its_form() -> None:
    for text in ("1e309", "1" + "0" * 350, "-1" + "0" * 350):
        with pytest.raises(ValueError, match="too large"):
            parse(text)


def test_a_key_twice_among_many() -> None:
    many = ",".join(f'"{number}":0' for number in [*range(9_000), 7])
    with pytest.raises(ValueError, match="the key '7' twice"):
        parse("{" + many + "}")


MANY = {
    "numbers": [0] * 9_999,
    "empty objects": [{}] * 9_999,
    "empty lists": [[]] * 9_999,
    "lists": [[0]] * 4_999 + [0],
    "an object": {str(number): None for number in range(9_999)},
    "objects": [{"a": {"b": []}}] * 3_333,
    "strings": ["a,[{", 'a",', '\\",', "\\"] * 2_499 + [0] * 3,
}


@pytest.mark.parametrize("value", MANY.values(), ids=MANY)
def test_so_many_values_are_read_and_no_more(value: Any) -> None:
    for indent in (None, 1):
        assert parse(json.dumps(value, indent=indent)) == value
        more = [*value, 0] if isinstance(value, list) else {**value, "": 0}
        with pytest.raises(TooManyValues, match=r"^has too many values"):
            parse(json.dumps(more, indent=indent))
        assert parse(json.dumps(more, indent=indent), max_values=None) == more


@pytest.mark.parametrize("text", ['"' + '\\"' * 500_000, '"[' * 500_000, "[" + " " * 1_000_000, "[ " * 500_000])
def test_values_are_counted_in_linear_time(text: str) -> None:
    began = time.process_time()
    has_more_values(text + ",," * 10_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("value", "levels"), [("x", 0), ([], 1), ({"a": 1}, 1), ({"a": [1, {"b": 2}], "c": []}, 3)])
def test_depth(value: object, levels: int) -> None:
    assert depth(value) == levels  # type: ignore[arg-type]
