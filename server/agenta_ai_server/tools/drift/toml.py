"""Writes values in TOML, each in one line."""

from __future__ import annotations

import json
import re
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(key: str) -> str:
    """Return one part of a key, in quotes if it needs them."""
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """Return a value of JSON in TOML, in one line.

    Raises:
        ValueError: There is a null in it, which TOML doesn't have.
    """
    match value:
        case None:
            raise ValueError("TOML has no null")
        case dict():
            pairs = ", ".join(f"{toml_key(key)} = {toml_value(each)}" for key, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(toml_value(each) for each in value)}]"
        case str():
            # JSON's escapes are TOML's, too; it leaves only this control character as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
