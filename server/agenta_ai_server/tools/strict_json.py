"""JSON that means the same to every reader (RFC 8259, and I-JSON, RFC 7493)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, NoReturn

from agenta_ai_server.domain.values import MAX_VALUES, has_more_values

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

MAX_DEPTH = 100
MAX_DIGITS = 300
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class TooManyValues(ValueError):
    """A text has more values than it may have."""


def parse(text: str, *, exact: bool = True, max_values: int | None = MAX_VALUES) -> Json:
    """Return the value that ``text`` holds.

    Args:
        text: JSON.
        exact: Whether numbers keep the text that they were read from, for :func:`dump`; else they are plain ones.
        max_values: How many values it may have, nested ones included; ``None`` for any number.

    Raises:
        ValueError: ``text`` isn't JSON, or is JSON that readers understand differently: with NaN, infinity or a number
            too large for a double, a key twice in one object, half of a surrogate pair, a byte order mark, or more
            than ``MAX_DEPTH`` levels. The message is the end of a sentence for people: "isn't JSON: …".
        TooManyValues: It has more than ``max_values``, or may have them and isn't JSON.
    """
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark: remove it")
    if max_values is not None and has_more_values(text, max_values):
        raise TooManyValues(f"has too many values (maximum {max_values:,})")
    try:
        value: Json = (_DECODER if exact else _PLAIN_DECODER).decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"isn't JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep") from None
    if text.count("{") + text.count("[") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    if ESCAPED_SURROGATE.search(text):
        _check_unicode(value)
    return value


def dump(value: Json) -> str:
    """Return ``value`` as JSON without needless blanks or escapes, its numbers as they were read."""
    return _dump_literals(value) if _has_literals(value) else _ENCODER.encode(value)


def _has_literals(value: Json) -> bool:
    """Say whether a number isn't written as Python would, which the library's encoder, in C, can't."""
    if isinstance(value, str):
        return False
    if isinstance(value, dict):
        return any(map(_has_literals, value.values()))
    return any(map(_has_literals, value)) if isinstance(value, list) else isinstance(value, _Number)


def _dump_literals(value: Json) -> str:
    match value:
        case dict():
            items = (f"{encode_basestring(key)}:{_dump_literals(item)}" for key, item in value.items())
            return "{" + ",".join(items) + "}"
        case list():
            return "[" + ",".join(map(_dump_literals, value)) + "]"
        case _Number():
            return value.literal
        case _:
            return _ENCODER.encode(value)


def depth(value: Json) -> int:
    """Return how many objects and lists enclose the innermost value: 0 for a string, 1 for ``[]``."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"has the key {twice[:50]!r} twice in one object")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"contains {name}, which JSON doesn't have")


class _Number(float):
    """A number that is written as it was read: ``1.10``, ``-0`` and ``1e-400`` have no float of their own."""

    __slots__ = ("literal",)

    def __init__(self, literal: str) -> None:
        self.literal = literal


def _number(literal: str) -> float:
    number = _plain_number(literal)
    return number if repr(number) == literal else _Number(literal)


def _plain_number(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise ValueError(f"contains the number {literal[:50]}, which is too large")
    return number


def _integer(literal: str) -> int | float:
    # Python reads no more digits than some thousands, and a double holds some three hundred.
    if len(literal) > MAX_DIGITS:
        raise ValueError(f"contains a number of {len(literal)} digits, which is too large")
    return _number(literal) if literal == "-0" else int(literal)


def _plain_integer(literal: str) -> int:
    return int(_integer(literal))


def _check_unicode(value: Json) -> None:
    try:
        dump(value).encode()
    except UnicodeEncodeError:
        raise ValueError("contains half of a surrogate pair, which isn't a character") from None


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_number, parse_int=_integer
)
_PLAIN_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_plain_number, parse_int=_plain_integer
)
