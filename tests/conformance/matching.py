"""Compares what is expected with what came. README.md lists the words that begin with a dollar."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ABSENT = object()
"""Stands for what isn't there."""

_SHOWN_CHARACTERS = 300
_SECONDS = re.compile(r"-?\d+(\.\d+)?s?")


def differences(expected: Any, actual: Any, place: str, exactly: bool = False) -> Iterator[str]:
    """What differs, a line for each. Keys of objects that aren't expected are fine, unless ``exactly``."""
    match expected:
        case dict():
            word = next(iter(expected), "")
            if check := _WORDS.get(word):
                yield from check(expected[word], actual, place, exactly)
            else:
                yield from _objects(expected, actual, place, exactly)
        case list() | tuple():
            yield from _lists(expected, actual, place, exactly)
        case _ if not _same(expected, actual):
            yield f"{place}: expected {shown(expected)}, got {shown(actual)}"


def fault_of(expected: Any) -> str | None:
    """What is wrong with an expectation itself."""
    match expected:
        case {"$repeat": [str(), int()], **rest} | {"$absent": True, **rest} if not rest:
            return None
        case {"$between": [int() | float(), int() | float()], **rest} if not rest:
            return None
        case {"$match": str(pattern), **rest} if not rest:
            return _fault_of_pattern(pattern)
        case {"$in_order": [_, *_] as items, **rest} if not rest:
            return fault_of(items)
        case {"$json": inner, **rest} | {"$exactly": inner, **rest} if not rest:
            return fault_of(inner)
        case dict() if wrong := [key for key in expected if key.startswith("$")]:
            return f"{wrong[0]} is unknown, stands beside other keys, or has no valid value"
        case dict():
            return next(filter(None, map(fault_of, expected.values())), None)
        case list() | tuple():
            return next(filter(None, map(fault_of, expected)), None)
    return None


def shown(value: Any) -> str:
    """The value as JSON, cut if it is long."""
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def _fault_of_pattern(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"$match: {error}"
    return None


def _same(expected: Any, actual: Any) -> bool:
    # To Python, true is 1. Numbers of JSON are one kind.
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return expected == actual
    return type(expected) is type(actual) and bool(expected == actual)


def _objects(expected: dict[str, Any], actual: Any, place: str, exactly: bool) -> Iterator[str]:
    if not isinstance(actual, dict):
        yield f"{place}: expected an object, got {shown(actual)}"
        return
    for key, item in expected.items():
        yield from differences(item, actual.get(key, ABSENT), f"{place}.{key}", exactly)
    if exactly:
        yield from (f"{place}.{key}: not expected: {shown(actual[key])}" for key in actual.keys() - expected.keys())


def _lists(expected: Sequence[Any], actual: Any, place: str, exactly: bool) -> Iterator[str]:
    if not isinstance(actual, list):
        yield f"{place}: expected a list, got {shown(actual)}"
    elif len(actual) != len(expected):
        yield f"{place}: expected {len(expected)}, got {len(actual)}: {shown(actual)}"
    else:
        for index, item in enumerate(expected):
            yield from differences(item, actual[index], f"{place}[{index}]", exactly)


def _absent(_: bool, actual: Any, place: str, _exactly: bool) -> Iterator[str]:
    if actual is not ABSENT:
        yield f"{place}: expected nothing, got {shown(actual)}"


def _between(bounds: list[float], actual: Any, place: str, _exactly: bool) -> Iterator[str]:
    number = actual if isinstance(actual, int | float) and not isinstance(actual, bool) else None
    if isinstance(actual, str) and _SECONDS.fullmatch(actual):
        number = float(actual.removesuffix("s"))
    if number is None or not bounds[0] <= number <= bounds[1]:
        yield f"{place}: expected a number from {bounds[0]} to {bounds[1]}, got {shown(actual)}"


def _match(pattern: str, actual: Any, place: str, _exactly: bool) -> Iterator[str]:
    if not isinstance(actual, str) or not re.fullmatch(pattern, actual, re.DOTALL):
        yield f"{place}: expected a text like {pattern}, got {shown(actual)}"


def _repeat(what: tuple[str, int], actual: Any, place: str, _exactly: bool) -> Iterator[str]:
    text, times = what
    if actual != text * times:
        yield f"{place}: expected {times} times {shown(text)}, got {shown(actual)}"


def _json(expected: Any, actual: Any, place: str, exactly: bool) -> Iterator[str]:
    try:
        content = json.loads(actual)
    except (TypeError, ValueError):
        yield f"{place}: expected a text of JSON, got {shown(actual)}"
        return
    yield from differences(expected, content, f"{place}, read", exactly)


def _in_order(expected: list[Any], actual: Any, place: str, exactly: bool) -> Iterator[str]:
    if not isinstance(actual, list):
        yield f"{place}: expected a list, got {shown(actual)}"
        return
    came = iter(actual)
    for item in expected:
        if not any(not list(differences(item, each, place, exactly)) for each in came):
            yield f"{place}: expected, after what was expected before it, {shown(item)}, got {shown(actual)}"
            return


def _exactly(expected: Any, actual: Any, place: str, _exactly: bool) -> Iterator[str]:
    yield from differences(expected, actual, place, exactly=True)


_WORDS: dict[str, Callable[[Any, Any, str, bool], Iterator[str]]] = {
    "$absent": _absent,
    "$between": _between,
    "$match": _match,
    "$repeat": _repeat,
    "$json": _json,
    "$in_order": _in_order,
    "$exactly": _exactly,
}
