"""Limits on schemas, so that the time of a check depends only on the value's size.

A validator visits a place of a value once for each subschema that applies to it. ``$ref`` and ``allOf`` can multiply
that without an end: thirty definitions, each of which names the one before twice, are a billion visits. So the visits
of one place are counted before the schema is used, and bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeAlias

from agenta_ai_server.domain.tool import JSON_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set

    from agenta_ai_server.domain.values import Json

Path: TypeAlias = "tuple[str | int, ...]"
Found: TypeAlias = "tuple[Path, str]"

# As JSON. 500 tools with two small ones each still fit into the 4 MiB that clients read by default.
MAX_BYTES = 64 * 1024
# Levels of objects and arrays. Each is three levels of a ``Struct``; every client reads a hundred of those.
MAX_DEPTH = 28
# Subschemas that apply to one place of a value.
MAX_VISITS = 50
# Entries of what is compared one by one with each value that a keyword applies to.
MAX_COMPARED = 500
# Levels of a value, see ``strict_json``.
MAX_VALUE_DEPTH = 100
# The largest integer up to which a double, and so a ``Struct``, holds every integer.
MAX_INTEGER = 2**53
_LONG_INTEGER = re.compile(r"[0-9]{16}")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_ONE = ("not", "if", "then", "else", "additionalProperties", "items", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_TABLES = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
# Without any of these, no more than two subschemas apply to one place.
_MULTIPLYING = frozenset({
    "$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "patternProperties", "contains",
    "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_IN_PLACE = ("not", "if", "then", "else")
# Subschemas with none of these apply no others.
_APPLYING = frozenset({*_ONE, *_LISTS, *_TABLES, "$ref"})
_UNSUPPORTED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "$vocabulary")


def find_faults(schema: Mapping[str, Json]) -> Iterator[Found]:
    """Yield what a schema holds that it may not, each with the path to it. A valid schema isn't assumed."""
    found = list(subschemas(schema))
    if wrong := list(_faults_of_keywords(schema, found)):
        yield from wrong
        return
    if all(_MULTIPLYING.isdisjoint(each) for _, each in found):
        return
    try:
        most = max(Places(schema).weigh(lambda _: 1))
    except CycleError:
        most = MAX_VISITS + 1
    if most > MAX_VISITS:
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
    text = _to_json(schema)
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


def _faults_of_keywords(
    schema: Mapping[str, Json], found: Collection[tuple[Path, Mapping[str, Any]]]
) -> Iterator[Found]:
    if schema.get("$schema", JSON_SCHEMA) not in (JSON_SCHEMA, f"{JSON_SCHEMA}#"):
        yield ("$schema",), f"must be {JSON_SCHEMA}, or absent"
    known = {id(each) for _, each in found}
    for path, each in found:
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


def _faults_of_reference(root: Mapping[str, Json], known: Set[int], path: Path, reference: object) -> Iterator[Found]:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        yield path, "must refer to a place in the same schema, '#/$defs/<name>': nothing is fetched"
        return
    try:
        found = resolve(root, reference)
    except LookupError:
        yield path, f"refers to {reference[:100]!r}, which isn't there"
        return
    if id(found) not in known:
        yield path, f"refers to {reference[:100]!r}, which isn't a subschema"


class Places:
    """Adds up what applies to one place of a value, for each depth of places.

    Schemas can be large and refer to themselves, so this takes one step for each subschema and depth, and only until
    two depths are alike: all below are too.

    Args:
        root: A schema in which each ``$ref`` refers to a subschema.

    Raises:
        CycleError: A subschema applies to its own place once more.
    """

    def __init__(self, root: Mapping[str, Json]) -> None:
        schemas: list[Mapping[str, Any]] = [root]
        numbers = {id(root): 0}

        def numbered(held: Iterable[object]) -> list[int]:
            found = []
            for each in held:
                if isinstance(each, dict):
                    if id(each) not in numbers:
                        numbers[id(each)] = len(schemas)
                        schemas.append(each)
                    found.append(numbers[id(each)])
            return found

        # The list grows until all that can be reached is in it.
        self._subschemas = [
            _Subschema(schema)
            if _APPLYING.isdisjoint(schema)
            else _Subschema(
                schema,
                numbered(_applied_here(root, schema)),
                [group for each in _applied_in_objects(schema) if (group := numbered(each))],
                [group for each in _applied_in_arrays(schema) if (group := numbered(each))],
            )
            for schema in schemas
        ]
        applying = {number: each.here for number, each in enumerate(self._subschemas) if each.here}
        self._order = [*TopologicalSorter(applying).static_order()]

    def weigh(self, weight: Callable[[Mapping[str, Any]], int]) -> list[int]:
        """Return the most that the subschemas weigh that apply to one place of a value, for each depth of places.

        Args:
            weight: Returns what a subschema weighs without those that it holds.
        """
        row = [weight(each.schema) for each in self._subschemas]
        self._add_up(row)
        found = [row[0]]
        above: list[int] = []
        while row != above and len(found) <= MAX_VALUE_DEPTH:
            row, above = [max(_sum(each.objects, row), _sum(each.arrays, row)) for each in self._subschemas], row
            self._add_up(row)
            found.append(row[0])
        return found + [row[0]] * (MAX_VALUE_DEPTH + 1 - len(found))

    def _add_up(self, row: list[int]) -> None:
        """Add what applies to the same place to each number."""
        for number in self._order:
            for each in self._subschemas[number].here:
                row[number] += row[each]


@dataclass(frozen=True, slots=True)
class _Subschema:
    """A subschema, and the numbers of those that it applies.

    Attributes:
        schema: The subschema.
        here: Those that it applies to its own place.
        objects: Those that it applies to a place in an object: one of each group.
        arrays: Those that it applies to a place in an array: one of each group.
    """

    schema: Mapping[str, Any]
    here: Sequence[int] = ()
    objects: Sequence[list[int]] = ()
    arrays: Sequence[list[int]] = ()


def _sum(groups: Sequence[list[int]], row: list[int]) -> int:
    return sum(max(map(row.__getitem__, group)) for group in groups)


def _applied_here(root: Mapping[str, Json], schema: Mapping[str, Any]) -> Iterator[object]:
    for keyword in ("allOf", "anyOf", "oneOf"):
        yield from _list(schema.get(keyword))
    yield from _table(schema.get("dependentSchemas"))
    for keyword in _IN_PLACE:
        yield schema.get(keyword)
    if "$ref" in schema:
        yield resolve(root, schema["$ref"])


def _applied_in_objects(schema: Mapping[str, Any]) -> Iterator[list[object]]:
    yield [*_table(schema.get("properties")), schema.get("additionalProperties")]
    yield from ([each] for each in _table(schema.get("patternProperties")))
    yield [schema.get("propertyNames")]
    yield [schema.get("unevaluatedProperties")]


def _applied_in_arrays(schema: Mapping[str, Any]) -> Iterator[list[object]]:
    yield [*_list(schema.get("prefixItems")), schema.get("items")]
    yield [schema.get("contains")]
    yield [schema.get("unevaluatedItems")]


def _list(held: object) -> list[object]:
    return held if isinstance(held, list) else []


def _table(held: object) -> list[object]:
    return list(held.values()) if isinstance(held, dict) else []
