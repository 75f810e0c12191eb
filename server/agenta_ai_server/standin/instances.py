"""Makes a value that a JSON Schema allows, always the same one, in place of a model's answer."""

from __future__ import annotations

import math
from typing import Any

_MAX_DEPTH = 12
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
}
_TEXT = "Example"


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value that the schema allows, as far as a few rules reach: not for patterns and the like.

    Args:
        schema: JSON Schema 2020-12.
        root: What references refer to; by default the schema itself.
        depth: How many levels enclose the value.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return _TEXT
    schema = _plain(schema, root)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    return _of_type(_type(schema), schema, root, depth)


def _plain(schema: Any, root: Any) -> dict[str, Any]:
    """Return the schema without references and combinations: of alternatives, the first is taken."""
    for _ in range(_MAX_DEPTH):
        held = [name for name in ("$ref", "allOf", "anyOf", "oneOf") if name in schema]
        if not held:
            break
        keyword = held[0]
        rest = {name: value for name, value in schema.items() if name != keyword}
        match keyword:
            case "$ref":
                schema = _merged(rest, _resolved(root, schema["$ref"]))
            case "allOf":
                for each in schema["allOf"]:
                    rest = _merged(rest, _plain(each, root) if isinstance(each, dict) else each)
                schema = rest
            case _:
                schema = _merged(rest, schema[keyword][0])
    return dict(schema)


def _of_type(name: str, schema: dict[str, Any], root: Any, depth: int) -> Any:
    match name:
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _string(schema)
        case "integer" | "number":
            return _number(schema, is_integer=name == "integer")
        case "boolean":
            return True
    return None


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    # Include optional properties, which is more useful to people, unless the schema is recursive.
    wanted = [*properties] if depth < _MAX_DEPTH // 2 else []
    wanted += [name for name in schema.get("required", []) if name not in wanted]
    return {name: instance(properties.get(name, {}), root, depth + 1) for name in wanted if depth < _MAX_DEPTH}


def _array(schema: dict[str, Any], root: Any, depth: int) -> list[Any]:
    first = [instance(each, root, depth + 1) for each in schema.get("prefixItems", [])]
    items = schema.get("items", {})
    least = schema.get("minItems", 0)
    count = max(least, min(1, schema.get("maxItems", 1)) if depth < _MAX_DEPTH // 2 else 0)
    more = count - len(first) if items is not False else 0
    return first + [instance(items, root, depth + 1) for _ in range(more)]


def _string(schema: dict[str, Any]) -> str:
    text: str = _FORMATS.get(schema.get("format", ""), _TEXT)
    least: int = schema.get("minLength", 0)
    most: int = schema.get("maxLength", max(len(text), least))
    return f"{text}{'.' * (least - len(text))}"[: max(most, least)]


def _number(schema: dict[str, Any], *, is_integer: bool) -> float:
    step = schema.get("multipleOf", 1 if is_integer else None)
    least = schema.get("minimum")
    if (above := schema.get("exclusiveMinimum")) is not None:
        least = above + (step or 0.5)
    most = schema.get("maximum")
    if (below := schema.get("exclusiveMaximum")) is not None:
        most = below - (step or 0.5)
    number = least if least is not None else min(1, most) if most is not None else 1
    if step:
        number = math.ceil(number / step) * step
    return int(number) if is_integer or float(number).is_integer() else number


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema or "required" in schema else "array" if "items" in schema else "string"


def _merged(schema: dict[str, Any], other: Any) -> dict[str, Any]:
    if not isinstance(other, dict):
        return schema
    properties = {**schema.get("properties", {}), **other.get("properties", {})}
    required = [*schema.get("required", []), *other.get("required", [])]
    return {
        **schema,
        **other,
        **({"properties": properties} if properties else {}),
        **({"required": required} if required else {}),
    }


def _resolved(root: Any, reference: str) -> Any:
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found
