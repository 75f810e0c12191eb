"""Limits the numbers of a value by what comparing them with a schema's takes.

The library compares numbers exactly, as fractions. That takes a microsecond for a pair of them, 25 where one is tiny or
huge, and other threads wait meanwhile: ten thousand doubles and an ``enum`` of five thousand integers would take them a
minute. Only comparing integers with integers takes next to no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenta_ai_server.tools.json_schema.bounds import Places, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.domain.values import Json

# Pairs of numbers that are compared, each of the value's with each of the schema's that apply to one place.
MAX_COMPARISONS = 25_000
# How many an unusual number counts as.
UNUSUAL = 10
# The powers of 2 between which a number is usual.
MIN_EXPONENT, MAX_EXPONENT = -20, 40
# How many others the library compares an item with that must be unique. Of long lists it compares hashes.
NEIGHBOURS = 7

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
# They are compared with all that is below a place, too.
_WHOLES = frozenset({"const", "enum"})


class NumberLimit:
    """Limits the numbers of values that are checked against a schema.

    Args:
        schema: A schema without faults.

    Attributes:
        comparisons: How many numbers each number of a value may be compared with.
    """

    def __init__(self, schema: Mapping[str, Json]) -> None:
        self.comparisons = 0
        self._counts_integers = False
        compared = [number for _, each in subschemas(schema) for number in _numbers_of(each, _BOUNDS | _WHOLES)]
        if compared or any(each.get("uniqueItems") is True for _, each in subschemas(schema)):
            places = Places(schema)
            self.comparisons = max(places.weigh(_weight_of_bounds)) + sum(places.weigh(_weight_of_wholes))
            self._counts_integers = any(isinstance(number, float) for number in compared)

    def most(self, value: Json) -> int | None:
        """Return how many usual numbers a value may have; ``None`` if it doesn't have more."""
        if not self.comparisons:
            return None
        held = sum(_weight(each) for each in _numbers(value) if self._counts_integers or isinstance(each, float))
        return MAX_COMPARISONS // self.comparisons if held * self.comparisons > MAX_COMPARISONS else None


def _weight_of_bounds(schema: Mapping[str, Any]) -> int:
    return sum(map(_weight, _numbers_of(schema, _BOUNDS)))


def _weight_of_wholes(schema: Mapping[str, Any]) -> int:
    unique = NEIGHBOURS if schema.get("uniqueItems") is True else 0
    return unique + sum(map(_weight, _numbers_of(schema, _WHOLES)))


def _numbers_of(schema: Mapping[str, Any], keywords: frozenset[str]) -> Iterator[int | float]:
    for keyword in keywords.intersection(schema):
        yield from _numbers(schema[keyword])


def _numbers(value: Json) -> Iterator[int | float]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            yield each


def _weight(number: float) -> int:
    return 1 if number == 0 or 2.0**MIN_EXPONENT <= abs(number) <= 2.0**MAX_EXPONENT else UNUSUAL
