"""Converts a JSON Schema 2020-12 to the shape of a message.

What protobuf has no type for becomes a ``Value``, ``Struct`` or ``ListValue``, so that every instance of the schema can
be held. The tool itself checks arguments by the schema; here only the types matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenta_ai_server.typed.comments import message_comment, property_comment
from agenta_ai_server.typed.names import InvalidName, field_name, json_name, pascal_case
from agenta_ai_server.typed.shape import Fault, Field, Kind, Label, Message, ToolShape, Unmapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.domain.values import Json

SCALARS = {"string": Kind.STRING, "integer": Kind.INTEGER, "number": Kind.NUMBER, "boolean": Kind.BOOLEAN}
COMBINATORS = ("allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "not")
NULL = "null"


def read_schemas(arguments: Mapping[str, Json], result: Mapping[str, Json]) -> ToolShape:
    """Return the messages of a tool, their fields without numbers.

    Args:
        arguments: JSON Schema of the arguments.
        result: JSON Schema of the result.

    Raises:
        Unmapped: One of them is no object with known properties, or two properties would have the same field.
    """
    faults: list[Fault] = []
    shape = ToolShape(_read(arguments, "arguments", faults), _read(result, "result", faults))
    if faults:
        raise Unmapped(faults)
    return shape


def _read(schema: Mapping[str, Json], path: str, faults: list[Fault]) -> Message:
    reader = _Reader(schema, faults)
    root, seen = reader.resolved(schema, frozenset())
    if not _has_known_properties(root) and root.get("additionalProperties") is not False:
        problem = 'Must be an object whose "properties" are listed. Its keys are unknown, so it has no fields.'
        faults.append(Fault(path, problem))
        return Message()
    return reader.message(root, path, seen)


class _Reader:
    """Reads one schema; what has no field is added to the faults."""

    def __init__(self, root: Mapping[str, Json], faults: list[Fault]) -> None:
        self._root = root
        self._faults = faults

    def message(self, schema: Mapping[str, Any], path: str, seen: frozenset[str]) -> Message:
        """Return the message of an object with known properties."""
        required = schema.get("required", ())
        properties = schema.get("properties", {})
        fields = []
        for name, inner in properties.items():
            try:
                field = field_name(name)
            except InvalidName as error:
                self._faults.append(Fault(f"{path}.{name}", f"{error} Rename the property."))
                continue
            fields.append(self._field(name, field, inner, f"{path}.{name}", seen, required=name in required))
        for name in required:
            if name not in properties:
                self._faults.append(
                    Fault(f"{path}.{name}", "Is required, but isn't among the properties. Describe it.")
                )
        self._check_names(fields, path)
        return Message(tuple(fields), comment=message_comment(schema))

    def _field(self, name: str, field: str, schema: Any, path: str, seen: frozenset[str], *, required: bool) -> Field:
        schema, seen = self.resolved(schema, seen)
        schema, nullable = _without_null(schema)
        schema, seen = self.resolved(schema, seen)
        comment = property_comment(name, schema, required=required, nullable=nullable)
        by_default = nullable and not required and "default" in schema and schema["default"] is None
        if nullable and not required and not by_default:
            # Absent and null differ, and a field that isn't set can mean only one of them.
            return Field(name, field, Kind.VALUE, comment=comment)
        kind, label, message = self._type(schema, path, seen, is_plain=required and not nullable)
        return Field(
            name,
            field,
            kind,
            label,
            required=required,
            nullable=nullable and kind is not Kind.VALUE,
            comment=comment,
            message=message,
        )

    def _type(
        self, schema: Mapping[str, Any], path: str, seen: frozenset[str], *, is_plain: bool
    ) -> tuple[Kind, Label, Message | None]:
        """Return the type of a property; ``is_plain``: it is always there, and not null."""
        match _type_of(schema):
            case "array":
                if is_plain or not ("default" in schema or schema.get("minItems")):
                    items, inner = self.resolved(schema.get("items"), seen)
                    kind = SCALARS.get(_type_of(items))
                    if kind and "prefixItems" not in schema:
                        return kind, Label.REPEATED, None
                    if _has_known_properties(items) and "prefixItems" not in schema:
                        return Kind.MESSAGE, Label.REPEATED, self.message(items, f"{path}[]", inner)
                return Kind.LIST, Label.SINGLE, None
            case "object":
                if _has_known_properties(schema):
                    return Kind.MESSAGE, Label.SINGLE, self.message(schema, path, seen)
                kind = SCALARS.get(_type_of(self.resolved(schema.get("additionalProperties"), seen)[0]))
                if kind and is_plain and _is_map(schema):
                    return kind, Label.MAP, None
                return Kind.OBJECT, Label.SINGLE, None
            case other:
                return SCALARS.get(other, Kind.VALUE), Label.SINGLE, None

    def resolved(self, schema: Any, seen: frozenset[str]) -> tuple[Mapping[str, Any], frozenset[str]]:
        """Return the schema that ``$ref`` leads to, with what stands beside it; an empty one for anything unknown.

        Args:
            schema: A schema.
            seen: The references that led here: one that leads back to itself has no end.
        """
        while isinstance(schema, dict) and ("$ref" in schema or _is_wrapped(schema)):
            schema = dict(schema)
            if _is_wrapped(schema):
                inner = schema.pop("allOf")[0]
            else:
                reference = schema.pop("$ref")
                inner = self._target(reference) if reference not in seen else None
                seen = seen | {reference}
            if not isinstance(inner, dict):
                return {key: schema[key] for key in ("title", "description") if key in schema}, seen
            schema = {**inner, **schema}
        return (schema if isinstance(schema, dict) else {}), seen

    def _target(self, reference: Any) -> Any:
        """Return what a JSON pointer within the schema points at; ``None`` if that is nothing."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        place: Any = self._root
        for step in reference[2:].split("/"):
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return place

    def _check_names(self, fields: list[Field], path: str) -> None:
        """Find fields that can't stand beside each other in one message, also where protoc names them itself."""
        taken: dict[str, str] = {}
        for field in fields:
            names = {field.name, json_name(field.name).lower(), field.key.lower()}
            if nested := nested_name(field):
                names.add(f"message {nested}")
            other = next((taken[name] for name in names if name in taken), None)
            if other is not None:
                problem = f"Its field would have the name of {other!r}. Rename one of the properties."
                self._faults.append(Fault(f"{path}.{field.key}", problem))
            taken |= dict.fromkeys(names, field.key)


def nested_name(field: Field) -> str:
    """Return the name of the message that a field's values have in the message that has the field; empty for none."""
    name = pascal_case(field.name)
    if field.label is Label.MAP:
        return f"{name}Entry"
    if field.kind is not Kind.MESSAGE:
        return ""
    return f"{name}Item" if field.label is Label.REPEATED else name


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return the one type that all instances have; empty if there are several, or it is unknown."""
    given = schema.get("type")
    if given is None:
        given = sorted(
            {_type_of_value(value) for value in schema.get("enum", [schema["const"]] if "const" in schema else [])}
        )
    if isinstance(given, list):
        if set(given) == {"integer", "number"}:
            return "number"
        given = given[0] if len(given) == 1 else ""
    return given if isinstance(given, str) else ""


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """Return the values that are allowed; an empty list if any is."""
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def _type_of_value(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return NULL
    return "array" if isinstance(value, list) else "object"


def _without_null(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return the schema of what isn't null, and whether null is allowed besides."""
    given = schema.get("type")
    if isinstance(given, list) and NULL in given:
        left = {**schema, "type": [each for each in given if each != NULL]}
        if "enum" in left:
            left["enum"] = [value for value in left["enum"] if value is not None]
        return left, True
    if given is None and None in schema.get("enum", ()):
        return {**schema, "enum": [value for value in schema["enum"] if value is not None]}, True
    for key in ("anyOf", "oneOf"):
        choices = schema.get(key)
        if given is None and isinstance(choices, list) and len(choices) == 2 and {"type": NULL} in choices:
            beside = {name: value for name, value in schema.items() if name != key}
            other = choices[0] if choices[1] == {"type": NULL} else choices[1]
            return ({**other, **beside} if isinstance(other, dict) else beside), True
    return schema, False


def _is_wrapped(schema: Mapping[str, Any]) -> bool:
    choices = schema.get("allOf")
    return isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict)


def _has_known_properties(schema: Mapping[str, Any]) -> bool:
    """Return whether it is an object all of whose properties are listed in one place."""
    branches = [schema[key] for key in COMBINATORS if key in schema]
    return _type_of(schema) == "object" and bool(schema.get("properties")) and not _names_properties(branches)


def _names_properties(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_names_properties, schema))
    return isinstance(schema, dict) and ("properties" in schema or any(map(_names_properties, schema.values())))


def _is_map(schema: Mapping[str, Any]) -> bool:
    return (
        not schema.get("properties")
        and "patternProperties" not in schema
        and not any(key in schema for key in COMBINATORS)
    )
