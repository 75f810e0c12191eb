"""What a JSON Web Token says, before anybody has verified it."""

from __future__ import annotations

import base64
import json
from typing import Any, NoReturn

MAX_CHARACTERS = 8192


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a signed token in its compact form.

    Raises:
        ValueError: It is no such token, or has more than 8,192 characters. The sentence quotes nothing of it.
    """
    if len(token) > MAX_CHARACTERS:
        raise ValueError("it is too long")
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise ValueError("it is no signed token")
    return _decoded(parts[0]), _decoded(parts[1])


def json_object(data: bytes) -> dict[str, Any]:
    """Return what a JSON object says.

    Raises:
        ValueError: It is none, or two readers could take it for different things: a name comes twice, or a number is
            none that JSON has. The sentence quotes nothing of it.
    """
    try:
        value = json.loads(data, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError("it is no unambiguous JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _decoded(part: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError("it is no base64url") from None
    return json_object(data)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError
    return names


def _no_number(_: str) -> NoReturn:
    raise ValueError
