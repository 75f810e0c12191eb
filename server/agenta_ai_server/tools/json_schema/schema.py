"""Checks values against a JSON Schema, and reports violations by path."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jsonschema_rs

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.domain.tool import JSON_SCHEMA
from agenta_ai_server.tools.json_schema.bounds import Places, find_faults, find_faults_of_size, resolve, subschemas
from agenta_ai_server.tools.json_schema.numbers import NumberLimit
from agenta_ai_server.tools.json_schema.values import WHOLE, count_values, find_long_key, path_of, with_doubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.json_schema.bounds import Found, Path

MAX_VIOLATIONS = 10
# With more values than this, only the first violation is looked for: the library finds all of them or one.
MAX_VALUES_FOR_ALL = 200
# What a string with a pattern has at most. Matching takes time that grows with its length, 25 ms here at the worst.
MAX_PATTERN_CHARACTERS = 10_000
# What a key has at most where keys are matched.
MAX_KEY_CHARACTERS = 1_000
# Of the compiled pattern, in bytes.
MAX_PATTERN_BYTES = 20_000
MAX_SHOWN = 200
WRONG_PATTERN = (
    "must be a regular expression that is matched in linear time, without look-around and back-references, and no "
    "larger than 20,000 bytes when compiled"
)

_ALTERNATIVES = ("anyOf", "oneOf")
# Of the formats, those whose check takes as long as that of a pattern.
_SLOW_FORMATS = ("regex", "idn-hostname")
_ENGINE = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES)
_META = jsonschema_rs.Draft202012Validator({"$ref": JSON_SCHEMA}, offline=True)


class SchemaError(ValueError):
    """A schema can't be used.

    Attributes:
        faults: The path to each fault, and a sentence about it.
    """

    def __init__(self, faults: list[Found]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {sentence}" for path, sentence in faults))
        self.faults = faults


class Schema:
    """A JSON Schema 2020-12, compiled. Formats are asserted, patterns matched in linear time, nothing is ever fetched.

    Args:
        source: The schema.

    Raises:
        SchemaError: It isn't a valid schema, or it goes beyond the bounds of this package.
    """

    def __init__(self, source: Mapping[str, Json]) -> None:
        if faults := _faults(source):
            raise SchemaError(faults)
        try:
            self._validator = _compiled(_adapted(source))
        except jsonschema_rs.ValidationError as error:
            raise SchemaError(list(_wrong_patterns(source)) or [_fault(error)]) from None
        self._source = source
        self._matches_keys = any("patternProperties" in each for _, each in subschemas(source))
        self._numbers = NumberLimit(source)

    @cached_property
    def matches(self) -> int:
        """How many patterns and slow formats at most are matched with the same text."""
        return max(Places(self._source).weigh(_matches))

    def violations(self, value: Json, root: str) -> list[Violation]:
        """Return at most ten violations of the schema; none if the value is valid.

        Args:
            value: What is checked.
            root: What paths begin with, ``"arguments"``; with an empty one they begin with a key of the value.
        """
        if self._matches_keys and (place := find_long_key(value, MAX_KEY_CHARACTERS)) is not None:
            return [Violation(path_of(root, place), f"Must have keys of at most {MAX_KEY_CHARACTERS:,} characters.")]
        # Integers beyond 64 bits are compared in the time of long division, and hashed as the doubles that they are
        # near to: ten thousand of them take uniqueItems half a minute.
        value = with_doubles(value)
        if (most := self._numbers.most(value)) is not None:
            description = (
                f"Must have at most {most:,} numbers, because the schema compares each with many others. Tiny and huge "
                "numbers count ten times."
            )
            return [Violation(root or WHOLE, description)]
        if self._validator.is_valid(value):
            return []
        found: list[Violation] = []
        for error in self._errors(value):
            for violation in _violations(error, root):
                if violation not in found:
                    found.append(violation)
            if len(found) >= MAX_VIOLATIONS:
                break
        return found[:MAX_VIOLATIONS]

    def _errors(self, value: Json) -> Iterator[jsonschema_rs.ValidationError]:
        if count_values(value, MAX_VALUES_FOR_ALL) < MAX_VALUES_FOR_ALL:
            yield from self._validator.iter_errors(value)
            return
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            yield error


def _matches(schema: Mapping[str, Any]) -> int:
    """Return how many patterns and slow formats a subschema matches with one text, without those that it holds."""
    return ("pattern" in schema) + (schema.get("format") in _SLOW_FORMATS) + len(schema.get("patternProperties", ()))


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    # The library's messages quote the value, which takes far longer than checking it, and they aren't used.
    return jsonschema_rs.Draft202012Validator(
        schema, pattern_options=_ENGINE, validate_formats=True, offline=True, mask="value"
    )


def _faults(source: Mapping[str, Json]) -> list[Found]:
    """Return all that is wrong with a schema, one fault for each place."""
    too_large = list(find_faults_of_size(source))
    faults = [*too_large, *find_faults(source)]
    if not too_large:
        faults += [_fault(error) for error in _META.iter_errors(source)]
        # Patterns are compiled anyway where nothing else is wrong.
        faults += _wrong_patterns(source) if faults else ()
    first: dict[Path, Found] = {}
    for found in faults:
        first.setdefault(found[0], found)
    return list(first.values())


def _wrong_patterns(source: Mapping[str, Json]) -> Iterator[Found]:
    """Yield the patterns that can't be compiled. A valid schema isn't assumed."""
    for path, each in subschemas(source):
        pattern, of_keys = each.get("pattern"), each.get("patternProperties")
        patterns: dict[Path, str] = {(*path, "pattern"): pattern} if isinstance(pattern, str) else {}
        if isinstance(of_keys, dict):
            patterns |= {(*path, "patternProperties", name): name for name in of_keys}
        for place, pattern in patterns.items():
            try:
                _compiled({"pattern": pattern})
            except jsonschema_rs.ValidationError:
                yield place, WRONG_PATTERN


def _adapted(source: Mapping[str, Json]) -> dict[str, Any]:
    """Return a schema that allows the same, and is checked as quickly as it can be.

    Patterns, and slow formats, are applied to short strings only, and long ones refused. Alternatives become
    conditions: of a value that fits none, the library would otherwise tell why it fits neither, and copy it for that,
    once for each level on which an alternative leads to others.
    """
    schema: dict[str, Any] = json.loads(json.dumps(source))
    known = [each for _, each in subschemas(schema)]
    targets = [(each, resolve(schema, each["$ref"])) for each in known if "$ref" in each]
    for each in known:
        if each.get("additionalProperties") is False:
            # Without it, the library doesn't say which key is too much.
            each.setdefault("properties", {})
        added = [_for_short_strings("pattern", each.pop("pattern"))] if "pattern" in each else []
        if each.get("format") in _SLOW_FORMATS:
            added.append(_for_short_strings("format", each.pop("format")))
        added += [_condition(keyword, each.pop(keyword)) for keyword in _ALTERNATIVES if keyword in each]
        if added:
            each["allOf"] = [*each.get("allOf", ()), *added]
    places = {id(each): path for path, each in subschemas(schema)} if targets else {}
    for each, target in targets:
        each["$ref"] = _reference(places[id(target)])
    return schema


def _for_short_strings(keyword: str, value: Json) -> dict[str, Any]:
    short = {"maxLength": MAX_PATTERN_CHARACTERS}
    return {"if": short, "then": {keyword: value}, "else": short}


def _condition(keyword: str, alternatives: list[Json]) -> dict[str, Any]:
    """Return a schema that allows what the alternatives allow. Its error says no more than the name of the keyword."""
    return {"if": {keyword: alternatives}, "else": {"not": {"$comment": keyword}}}


def _reference(path: Path) -> str:
    """Return the JSON pointer (RFC 6901) to a place in the same schema, as a URI."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "#" + "".join(f"/{quote(step, safe='~')}" for step in steps)


def _violations(error: jsonschema_rs.ValidationError, root: str) -> Iterator[Violation]:
    steps, keyword, value = list(error.instance_path), error.kind.name, error.kind.value
    if keyword == "required":
        yield Violation(path_of(root, [*steps, value]), "Required, and missing.")
    elif keyword in ("additionalProperties", "unevaluatedProperties"):
        for name in value[:MAX_VIOLATIONS]:
            yield Violation(path_of(root, [*steps, name]), "Unknown: the schema doesn't allow this key.")
    elif keyword == "propertyNames":
        yield Violation(path_of(root, [*steps, value.instance]), _sentence(value.kind.name, value.kind.value))
    elif keyword == "not" and isinstance(value, dict) and value.get("$comment") in _ALTERNATIVES:
        yield Violation(path_of(root, steps) or WHOLE, _sentence(value["$comment"], None))
    else:
        yield Violation(path_of(root, steps) or WHOLE, _sentence(keyword, value))


def _sentence(keyword: str, value: Any) -> str:
    """Return what a keyword demands. It never repeats the value that was checked, which may be long, or private."""
    if describe := _SENTENCES.get(keyword):
        return describe(value)
    return f"Breaks the schema's {keyword}."


def _shown(*values: object) -> str:
    text = ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


_SENTENCES: dict[str, Callable[[Any], str]] = {
    "anyOf": lambda _: "Must match one of the schema's alternatives.",
    "const": lambda value: f"Must be {_shown(value)}.",
    "contains": lambda _: "Lacks an item that the schema requires.",
    "enum": lambda values: f"Must be one of {_shown(*values)}.",
    "exclusiveMaximum": lambda limit: f"Must be less than {limit}.",
    "exclusiveMinimum": lambda limit: f"Must be greater than {limit}.",
    "falseSchema": lambda _: "Must be absent.",
    "format": lambda form: f"Must have the format {form}.",
    "maxItems": lambda limit: f"Must have at most {_counted(limit, 'item')}.",
    "maxLength": lambda limit: f"Must have at most {_counted(limit, 'character')}.",
    "maxProperties": lambda limit: f"Must have at most {_counted(limit, 'key')}.",
    "maximum": lambda limit: f"Must be at most {limit}.",
    "minItems": lambda limit: f"Must have at least {_counted(limit, 'item')}.",
    "minLength": lambda limit: f"Must have at least {_counted(limit, 'character')}.",
    "minProperties": lambda limit: f"Must have at least {_counted(limit, 'key')}.",
    "minimum": lambda limit: f"Must be at least {limit}.",
    "multipleOf": lambda factor: f"Must be a multiple of {factor}.",
    "not": lambda _: "Must not match the schema's not.",
    "oneOf": lambda _: "Must match exactly one of the schema's alternatives.",
    "pattern": lambda pattern: f"Must match {_shown(pattern)}.",
    "type": lambda types: f"Must be of type {' or '.join(types)}.",
    "unevaluatedItems": lambda _: "Has more items than the schema describes.",
    "uniqueItems": lambda _: "Must not contain the same item twice.",
}


def _fault(error: jsonschema_rs.ValidationError) -> Found:
    """Return what is wrong with a schema, by the schema of schemas."""
    path, value = tuple(error.instance_path), error.kind.value
    if path[-1:] == ("type",):
        return path, "must be array, boolean, integer, null, number, object or string, or a list of these"
    sentence = _sentence(error.kind.name, value).rstrip(".")
    return path, sentence[0].lower() + sentence[1:]
