"""Compares a result's schema in the tools file with the schema that the deployed prompt enforces."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str, ...]
"""Where in a schema: ``("properties", "queue", "enum")``."""

_NOTHING: Final = object()
# They say something about a value, and allow or forbid none.
_ANNOTATIONS = frozenset(
    {"$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description"}
    | {"examples", "readOnly", "title", "writeOnly"}
)
_COMBINED = frozenset(
    {"allOf", "anyOf", "contains", "dependentRequired", "dependentSchemas", "else", "if", "not", "oneOf"}
    | {"patternProperties", "prefixItems", "propertyNames", "then"}
)
_LOWER_BOUNDS = frozenset({"exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"})
_UPPER_BOUNDS = frozenset({"exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"})
# Each of these is compared in its own way.
_COMPARED = frozenset({"$ref", "additionalProperties", "const", "enum", "items", "properties", "required", "type"})
# Their members are schemas by name, and not keywords.
_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_MAX_REFERENCES = 8
_TYPE_NAMES = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}
_TYPES = tuple(_TYPE_NAMES.values())


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a schema.

    Attributes:
        path: Where.
        do: ``"set"`` the value there, ``"remove"`` what is there, ``"drop"`` it as the property of an object, which
            may be its last, ``"include"`` the value in the list there, or ``"exclude"`` it.
        value: The value.
    """

    path: Path
    do: Literal["set", "remove", "drop", "include", "exclude"]
    value: Any = None


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One way in which the deployed schema differs from that of the file.

    Attributes:
        place: The value that it is about, for people: ``"items[].price"``; empty for the whole.
        text: What is different, as the end of a sentence whose subject is the place.
        widens: Whether the file's schema would allow more values than it does if it followed.
        edits: How the file's schema would follow.
    """

    place: str
    text: str
    widens: bool
    edits: tuple[Edit, ...] = field(default=(), repr=False)


def schema_changes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[SchemaChange]:
    """Return the differences between the deployed schema and the file's; none if both have the same effect.

    Annotations don't count, and neither do limits that only the file has, such as ``maxLength``: models can't be held
    to many of them, so people add them there. Of ``anyOf`` and the like only the whole is compared.

    Args:
        ours: The file's.
        theirs: The deployed one.
    """
    return list(_Comparison(ours, theirs).schemas(ours, theirs, "", ()))


class _Comparison:
    """Walks through both schemas at once; references are followed within each."""

    def __init__(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        self._ours, self._theirs = ours, theirs
        self._seen: set[tuple[int, int]] = set()

    def schemas(self, ours: Any, theirs: Any, place: str, path: Path) -> Iterator[SchemaChange]:
        """Compare what both allow at one place."""
        ours, path = _resolved(ours, self._ours, path)
        theirs, _ = _resolved(theirs, self._theirs, ())
        if (id(ours), id(theirs)) in self._seen:
            return
        self._seen.add((id(ours), id(theirs)))
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            if ours != theirs:
                yield SchemaChange(place, "has a different description", True, (self._set(path, theirs),))
            return
        yield from _types(ours, theirs, place, path)
        yield from _values(ours, theirs, place, path)
        yield from self._properties(ours, theirs, place, path)
        yield from self._inner("items", f"{place}[]", ours, theirs, path)
        # If the file allows more keys than the deployed schema, that is intended.
        if ours.get("additionalProperties", True) is not True:
            yield from self._inner("additionalProperties", _joined(place, "*"), ours, theirs, path)
        yield from self._others(ours, theirs, place, path)

    def _properties(
        self, ours: Mapping[str, Any], theirs: Mapping[str, Any], place: str, path: Path
    ) -> Iterator[SchemaChange]:
        known, deployed = _object(ours, "properties"), _object(theirs, "properties")
        # Of a key that has no schema of its own, any value may be allowed, or none.
        others = ours.get("additionalProperties", True)
        needed, sure = _strings(ours, "required"), _strings(theirs, "required")
        required = (*path, "required")
        for name in known:
            inner, where = _joined(place, name), (*path, "properties", name)
            if name not in deployed:
                edits = (Edit(where, "drop"), Edit(required, "exclude", name))
                is_wider = name in needed or others is not False
                yield SchemaChange(inner, "is no longer part of it", is_wider, edits)
                continue
            yield from self.schemas(known[name], deployed[name], inner, where)
            if name in needed and name not in sure:
                yield SchemaChange(inner, "may be missing now", True, (Edit(required, "exclude", name),))
            elif name in sure and name not in needed:
                yield SchemaChange(inner, "is always there now", False, (Edit(required, "include", name),))
        for name in deployed:
            if name not in known:
                also = (Edit(required, "include", name),) if name in sure else ()
                edit = self._set((*path, "properties", name), deployed[name])
                yield SchemaChange(_joined(place, name), "is new", others is not True, (edit, *also))

    def _inner(
        self, keyword: str, place: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path
    ) -> Iterator[SchemaChange]:
        where = (*path, keyword)
        if keyword in ours and keyword in theirs:
            yield from self.schemas(ours[keyword], theirs[keyword], place, where)
        elif keyword in theirs and theirs[keyword] is not True:
            yield SchemaChange(place, "is no longer unrestricted", False, (self._set(where, theirs[keyword]),))
        elif keyword in ours and ours[keyword] is not True:
            yield SchemaChange(place, "may now be anything", True, (Edit(where, "remove"),))

    def _others(
        self, ours: Mapping[str, Any], theirs: Mapping[str, Any], place: str, path: Path
    ) -> Iterator[SchemaChange]:
        for keyword in sorted({*theirs, *_COMBINED.intersection(ours)} - _COMPARED - _ANNOTATIONS):
            was, now = ours.get(keyword, _NOTHING), theirs.get(keyword, _NOTHING)
            if keyword.startswith("x-") or _plain(was, self._ours) == _plain(now, self._theirs):
                continue
            edit = Edit((*path, keyword), "remove") if now is _NOTHING else self._set((*path, keyword), now)
            if keyword in _COMBINED:
                said = f"has {'no' if now is _NOTHING else 'another'} {keyword}"
            else:
                said = f"has {keyword} {json.dumps(now)}{'' if was is _NOTHING else f', not {json.dumps(was)}'}"
            yield SchemaChange(place, said, not _narrows(keyword, was, now), (edit,))

    def _set(self, path: Path, theirs: Any) -> Edit:
        return Edit(path, "set", _inlined(theirs, self._theirs))


def _types(ours: Mapping[str, Any], theirs: Mapping[str, Any], place: str, path: Path) -> Iterator[SchemaChange]:
    known, deployed = _type_set(ours), _type_set(theirs)
    if known != deployed:
        text = f"has the type {_listed(theirs.get('type', 'any'))}, not {_listed(ours.get('type', 'any'))}"
        yield SchemaChange(place, text, not deployed <= known, (_follow(theirs, path, "type"),))


def _values(ours: Mapping[str, Any], theirs: Mapping[str, Any], place: str, path: Path) -> Iterator[SchemaChange]:
    known, deployed = _allowed(ours), _allowed(theirs)
    # Without the list, the type may have to be written that followed from it.
    edits = tuple(_follow(theirs, path, name) for name in ("enum", "const", "type") if name in ours or name in theirs)
    if deployed is None:
        if known is not None:
            yield SchemaChange(place, "may have other values than the listed ones", True, edits)
    elif known is None:
        yield SchemaChange(place, f"is always one of {', '.join(deployed)}", False, edits)
    elif set(known) != set(deployed):
        gained = [value for value in deployed if value not in known]
        lost = [value for value in known if value not in deployed]
        parts = [f"may also be {', '.join(gained)}"] if gained else []
        parts += [f"is never {', '.join(lost)} any more"] if lost else []
        yield SchemaChange(place, " and ".join(parts), bool(gained), edits)


def _follow(theirs: Mapping[str, Any], path: Path, keyword: str) -> Edit:
    where = (*path, keyword)
    return Edit(where, "set", theirs[keyword]) if keyword in theirs else Edit(where, "remove")


def _narrows(keyword: str, was: Any, now: Any) -> bool:
    if was is _NOTHING:
        return True
    if not all(isinstance(value, int | float) for value in (was, now)):
        return False
    return bool((keyword in _LOWER_BOUNDS and now > was) or (keyword in _UPPER_BOUNDS and now < was))


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _resolved(schema: Any, root: Mapping[str, Any], path: Path) -> tuple[Any, Path]:
    """Follow the reference that a schema is, if it is one, within its document."""
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in reference[1:].split("/")[1:])
        found: Any = root
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        if found is None:
            break
        schema, path = found, steps
    return schema, path


def _inlined(schema: Any, root: Mapping[str, Any], within: tuple[int, ...] = ()) -> Any:
    """Return a self-contained schema. Recursive references allow everything."""
    if isinstance(schema, list):
        return [_inlined(each, root, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found, _ = _resolved(schema, root, ())
    if found is not schema:
        is_loop = id(found) in within or len(within) == _MAX_REFERENCES
        return {} if is_loop else _inlined(found, root, (*within, id(found)))
    return {name: _inlined(each, root, within) for name, each in schema.items()}


def _plain(schema: Any, root: Mapping[str, Any]) -> str:
    """Return the schema without annotations, in a form that can be compared."""
    return "" if schema is _NOTHING else json.dumps(_bare(_inlined(schema, root)), sort_keys=True)


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {}
    for name, each in schema.items():
        if name in _MAPS and isinstance(each, dict):
            bare[name] = {key: _bare(inner) for key, inner in each.items()}
        elif name not in _ANNOTATIONS:
            bare[name] = each if name in ("const", "enum") else _bare(each)
    return bare


def _type_set(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the types of the values that a schema allows, as far as its own keywords say."""
    given = schema.get("type")
    if given is None:
        values = _listed_values(schema)
        given = _TYPES if values is None else [_TYPE_NAMES[type(value)] for value in values]
    types = frozenset([given] if isinstance(given, str) else given)
    return types | {"integer"} if "number" in types else types


def _listed_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the only values that a schema allows; ``None`` if it lists none."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _allowed(schema: Mapping[str, Any]) -> list[str] | None:
    """Return these values as JSON."""
    values = _listed_values(schema)
    return None if values is None else [json.dumps(each, sort_keys=True, ensure_ascii=False) for each in values]


def _listed(types: Any) -> str:
    return " or ".join(map(str, types)) if isinstance(types, list) else str(types)


def _object(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _strings(schema: Mapping[str, Any], name: str) -> list[str]:
    value = schema.get(name)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
