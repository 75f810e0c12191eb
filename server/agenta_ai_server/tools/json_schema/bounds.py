"""Limits on schemas, so that the time of a check depends only on the value's size.

A validator visits a place of a value once for each subschema that applies to it. ``$ref`` and ``allOf`` can multiply
that without an end: thirty definitions, each of which names the one before twice, are a billion visits. So the visits
of one place are counted before the schema is used, and bounded.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

from agenta_ai_server.domain.tool import JSON_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agenta_ai_server.domain.values import Json

Path: TypeAlias = "tuple[str | int, ...]"
Found: TypeAlias = "tuple[Path, str]"

#: As JSON. 500 tools with two small ones each still fit into the 4 MiB that clients read by default.
MAX_BYTES = 64 * 1024
#: Levels of objects and arrays. Each is three levels of a ``Struct``; every client reads a hundred of those.
MAX_DEPTH = 28
#: Subschemas that apply to one place of a value.
MAX_VISITS = 50
#: Entries of what is compared one by one with each value that a keyword applies to.
MAX_COMPARED = 500
#: Levels of a value, see ``strict_json``.
MAX_VALUE_DEPTH = 100
#: The largest integer up to which a double, and so a ``Struct``, holds every integer.
MAX_INTEGER = 2**53
_LONG_INTEGER = re.compile(r"[0-9]{16}")

_ONE = ("not", "if", "then", "else", "additionalProperties", "items", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_TABLES = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
# Without any of these, no more than two subschemas apply to one place.
_MULTIPLYING = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "patternProperties", "contains",
                "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_IN_PLACE = ("not", "if", "then", "else")
_UNSUPPORTED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "$vocabulary")


def find_faults(schema: Mapping[str, Json]) -> Iterator[Found]:
    """Yield what a schema holds that it may not, each with the path to it. A valid schema isn't assumed."""
    if wrong := list(_faults_of_keywords(schema)):
        yield from wrong
        return
    if not any(keyword in each for _, each in subschemas(schema) for keyword in _MULTIPLYING):
        return
    if _most_visits(schema) > MAX_VISITS:
        yield (
            (),
            f"more than {MAX_VISITS} subschemas apply to one place of a value, or one refers to itself: use fewer "
            "allOf, anyOf, oneOf and $ref",
        )


def subschemas(schema: object, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a schema and all that it holds, each with the path to it."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, held in schema.items():
        if not isinstance(held, dict | list):
            continue
        if keyword in _ONE:
            yield from subschemas(held, (*path, keyword))
        elif keyword in _LISTS:
            for index, each in enumerate(_list(held)):
                yield from subschemas(each, (*path, keyword, index))
        elif keyword in _TABLES and isinstance(held, dict):
            for name, each in held.items():
                yield from subschemas(each, (*path, keyword, name))


def resolve(root: Mapping[str, Json], reference: str) -> Any:
    """Return what a JSON pointer (RFC 6901) behind ``#`` names.

    Raises:
        LookupError: There is no such thing.
    """
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found[name]
        elif isinstance(found, list) and name.isdecimal():
            found = found[int(name)]
        else:
            raise LookupError(reference)
    return found


def find_faults_of_size(schema: Mapping[str, Json]) -> Iterator[Found]:
    """Yield in what a schema is too large, each with the path to it."""
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        yield (), f"has {size:,} bytes as JSON, more than the maximum of {MAX_BYTES:,}"
    if text.count("{") + text.count("[") <= MAX_DEPTH and not _LONG_INTEGER.search(text):
        return
    level: list[tuple[Path, Any]] = [((), schema)]
    for _ in range(MAX_DEPTH + 1):
        level = [(path, value) for path, value in level if isinstance(value, dict | list)]
        level = [
            ((*path, key), item)
            for path, value in level
            for key, item in (value.items() if isinstance(value, dict) else enumerate(value))
        ]
        for path, value in level:
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                yield path, "is an integer beyond 2**53, which not every JSON reader represents exactly"
    if level:
        yield level[0][0][:MAX_DEPTH], f"is nested more than {MAX_DEPTH} levels deep"


def _faults_of_keywords(schema: Mapping[str, Json]) -> Iterator[Found]:
    if schema.get("$schema", JSON_SCHEMA) not in (JSON_SCHEMA, f"{JSON_SCHEMA}#"):
        yield ("$schema",), f"must be {JSON_SCHEMA}, or absent"
    known = dict(subschemas(schema))
    for path, each in known.items():
        for keyword in _UNSUPPORTED:
            if keyword in each:
                yield (*path, keyword), f"{keyword} isn't supported: refer to '#/$defs/<name>' by $ref"
        for keyword in ("enum", "dependentRequired", "dependentSchemas"):
            if _compared(each.get(keyword)) > MAX_COMPARED:
                yield (*path, keyword), f"has more than {MAX_COMPARED} entries, and isn't of strings or integers only"
        if "$id" in each and path:
            yield (*path, "$id"), "is allowed only at the top of the schema"
        if "$ref" in each:
            yield from _faults_of_reference(schema, known, (*path, "$ref"), each["$ref"])


def _compared(entries: object) -> int:
    """Return how many entries are compared one by one: strings alone, and integers with integers, are found at once."""
    if isinstance(entries, list) and {type(entry) for entry in entries} in ({str}, {int}):
        return 0
    return len(entries) if isinstance(entries, list | dict) else 0


def _faults_of_reference(
    root: Mapping[str, Json], known: Mapping[Path, dict[str, Any]], path: Path, reference: object
) -> Iterator[Found]:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        yield path, "must refer to a place in the same schema, '#/$defs/<name>': nothing is fetched"
        return
    try:
        found = resolve(root, reference)
    except LookupError:
        yield path, f"refers to {reference[:100]!r}, which isn't there"
        return
    if not any(found is each for each in known.values()):
        yield path, f"refers to {reference[:100]!r}, which isn't a subschema"


class _EndlessError(Exception):
    """A subschema applies to the same place as the one that refers to it."""


def weigh(root: Mapping[str, Json], weight: Callable[[Mapping[str, Any]], int]) -> list[int]:
    """Return the most that the subschemas weigh that apply to one place of a value, for each depth of places.

    Args:
        root: A schema without faults.
        weight: Returns what a subschema weighs without those that it holds.
    """
    visits, weights = _Visits(root), _Visits(root, weight)
    depths = takewhile(lambda depth: visits.at(root, depth), range(MAX_VALUE_DEPTH + 1))
    return [weights.at(root, depth) for depth in depths]


def _most_visits(root: Mapping[str, Json]) -> int:
    """Return how many subschemas at most apply to one place of a value, at any depth; a large number for no bound."""
    visits = _Visits(root)
    most = 0
    try:
        for depth in range(MAX_VALUE_DEPTH + 1):
            count = visits.at(root, depth)
            most = max(most, count)
            if not count or most > MAX_VISITS:
                break
    except _EndlessError:
        return MAX_VISITS + 1
    return most


class _Visits:
    """Counts the subschemas that apply to a place a given number of levels below the place of a schema."""

    def __init__(self, root: Mapping[str, Json], weight: Callable[[Mapping[str, Any]], int] = lambda _: 1) -> None:
        self._root = root
        self._weight = weight
        self._known: dict[tuple[int, int], int | None] = {}

    def at(self, schema: object, depth: int) -> int:
        if not isinstance(schema, dict):
            return 0
        key = (id(schema), depth)
        if key in self._known:
            known = self._known[key]
            if known is None:
                raise _EndlessError
            return known
        self._known[key] = None
        count = sum(self.at(each, depth) for each in self._in_place(schema))
        count += self._below(schema, depth - 1) if depth else self._weight(schema)
        self._known[key] = count
        return count

    def _in_place(self, schema: dict[str, Any]) -> Iterator[object]:
        for keyword in ("allOf", "anyOf", "oneOf"):
            yield from _list(schema.get(keyword))
        yield from _table(schema.get("dependentSchemas"))
        for keyword in _IN_PLACE:
            yield schema.get(keyword)
        if "$ref" in schema:
            yield resolve(self._root, schema["$ref"])

    def _below(self, schema: dict[str, Any], depth: int) -> int:
        def most(schemas: Iterator[object] | list[object]) -> int:
            return max((self.at(each, depth) for each in schemas), default=0)

        named = most([*_table(schema.get("properties")), schema.get("additionalProperties")])
        patterns = sum(self.at(each, depth) for each in _table(schema.get("patternProperties")))
        of_object = named + patterns + most([schema.get("propertyNames")]) + most([schema.get("unevaluatedProperties")])
        items = most([*_list(schema.get("prefixItems")), schema.get("items")])
        of_array = items + most([schema.get("contains")]) + most([schema.get("unevaluatedItems")])
        return max(of_object, of_array)


def _list(held: object) -> list[object]:
    return held if isinstance(held, list) else []


def _table(held: object) -> list[object]:
    return list(held.values()) if isinstance(held, dict) else []
