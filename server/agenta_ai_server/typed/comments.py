"""Writes the comments of messages and fields from the schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# A list of values that is longer doesn't help who reads the code.
MAX_VALUES_SHOWN = 40
BOUNDS = (
    ("minimum", "At least {}."),
    ("exclusiveMinimum", "Greater than {}."),
    ("maximum", "At most {}."),
    ("exclusiveMaximum", "Less than {}."),
    ("multipleOf", "A multiple of {}."),
    ("pattern", "Pattern: {}"),
    ("format", "Format: {}."),
)
RANGES = (
    ("minLength", "maxLength", "characters"),
    ("minItems", "maxItems", "items"),
    ("minProperties", "maxProperties", "keys"),
)


def message_comment(schema: Mapping[str, Any]) -> str:
    """Return what an object is; empty if the schema doesn't say."""
    return _text(schema.get("description")) or _text(schema.get("title"))


def property_comment(name: str, schema: Mapping[str, Any], *, required: bool, nullable: bool) -> str:
    """Return what a property is, and what its values are kept to."""
    about = _text(schema.get("description")) or _text(schema.get("title")) or f"The property {name!r}"
    parts = [_presence(schema, required=required, nullable=nullable)]
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if values:
        shown = ", ".join(_json(value) for value in values[:MAX_VALUES_SHOWN])
        parts.append(f"One of: {shown}{', …' if len(values) > MAX_VALUES_SHOWN else ''}.")
    parts += [sentence.format(_bound(schema[key])) for key, sentence in BOUNDS if key in schema]
    parts += [_range(schema.get(least), schema.get(most), what) for least, most, what in RANGES]
    return f"{_sentence(about)}\n{' '.join(part for part in parts if part)}".strip()


def _range(least: Any, most: Any, what: str) -> str:
    if least == 1 and most is None:
        return "Not empty."
    if not least:
        return f"At most {most} {what}." if most is not None else ""
    return f"At least {least} {what}." if most is None else f"From {least} to {most} {what}."


def _bound(value: Any) -> str:
    return " ".join(str(value).split())


def _sentence(text: str) -> str:
    return text if text[-1] in ".!?:" else f"{text}."


def _presence(schema: Mapping[str, Any], *, required: bool, nullable: bool) -> str:
    if required:
        return "Required; may be null." if nullable else "Required."
    if schema.get("default") is not None:
        return f"Default: {_json(schema['default'])}."
    return ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
    """Return the text as lines without control characters; empty for anything else."""
    if not isinstance(value, str):
        return ""
    lines = ("".join(char for char in line if char.isprintable()).strip() for line in value.splitlines())
    return "\n".join(line for line in lines if line)
