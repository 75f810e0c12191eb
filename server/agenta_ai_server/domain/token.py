"""Unverified JSON Web Tokens."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_CHARACTERS = 8192

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")


@dataclass(frozen=True, slots=True)
class Token:
    """The unverified content of a token.

    Attributes:
        header: How it is signed.
        claims: What it says.
    """

    header: dict[str, Any]
    claims: dict[str, Any]


def unverified(token: str) -> Token:
    """Read a signed token in its compact form.

    Raises:
        ValueError: It isn't such a token, or has more than 8,192 characters. The sentence doesn't quote it.
    """
    parts = _COMPACT.fullmatch(token) if len(token) <= MAX_CHARACTERS else None
    if parts is None:
        raise ValueError("it isn't a signed token, or is too long")
    header, claims, _ = (_decoded(part) for part in parts.groups())
    return Token(json_object(header), json_object(claims))


def json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: It isn't one, or parsers could read it differently: a name occurs twice, or a number isn't one of
            JSON. The sentence quotes nothing of it.
    """
    try:
        value = json.loads(data, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError("it isn't unambiguous JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it isn't a JSON object")
    return value


def _decoded(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise ValueError("it isn't base64url") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError
    return names


def _no_number(_: str) -> NoReturn:
    raise ValueError
