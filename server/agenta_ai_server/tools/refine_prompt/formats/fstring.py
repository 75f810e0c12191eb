"""``fstring``: what Python's ``str.format`` reads. It is never called: a user's template could walk our objects."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING

from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMATTER = Formatter()
_BRACE = re.compile("[{}]")
# One placeholder may ask for gigabytes of padding.
_HUGE = re.compile(r"\d{5}")
# No input of a prompt is named like this, but the braces of a JSON example read so.
_NO_NAME = re.compile(r"""^\s|\s$|^$|["',\n]""")


def variables(text: str) -> frozenset[str]:
    """The variables of a text, each with its path, as written: blanks belong to the name here.

    Raises:
        TemplateSyntaxError: ``str.format`` with named values could not render it.
    """
    return frozenset(_variables(text, 0, text, nested=False))


def _variables(text: str, start: int, piece: str, *, nested: bool) -> Iterator[str]:
    for offset, name, spec, conversion in _fields(text, start, piece):
        reason = _name_fault(name) or _spec_fault(spec, conversion, nested=nested)
        if reason:
            message = f"{{{shown(name)}}} can't be rendered: {reason}. A literal brace is written twice."
            raise TemplateSyntaxError.at(message, text, offset)
        yield name
        if "{" in spec:
            yield from _variables(text, text.find(spec, offset + len(name)), spec, nested=True)


def _fields(text: str, start: int, piece: str) -> Iterator[tuple[int, str, str, str | None]]:
    """Offset, name, format spec and conversion of each replacement field in a piece of a text."""
    at = 0
    try:
        for literal, name, spec, conversion in _FORMATTER.parse(piece):
            at += len(literal)
            if name is None:
                # Python reports an escaped brace as the end of a literal, where it counts once.
                at += literal.endswith(("{", "}"))
                continue
            yield start + at, name, spec or "", conversion
            at += len("{") + len(name) + (len("!r") if conversion else 0)
            at += len(":") + len(spec or "") if piece[at] == ":" else 0
            at += len("}")
    except ValueError as error:
        brace = _BRACE.search(piece, at)
        message = f"Python's str.format can't read this: {error}. A literal brace is written twice."
        raise TemplateSyntaxError.at(message, text, start + (brace.start() if brace else at)) from None


class _Anything:
    """Has every attribute and every item, so that a path can be read without a value."""

    def __getattribute__(self, name: str) -> _Anything:
        return self

    def __getitem__(self, key: object) -> _Anything:
        return self


def _name_fault(name: str) -> str:
    try:
        _, root = _FORMATTER.get_field(name, (), defaultdict(_Anything))
    except IndexError:
        return "inputs have names, not numbers"
    except ValueError as error:
        return str(error)
    return "this is no name of an input" if _NO_NAME.search(str(root)) else ""


def _spec_fault(spec: str, conversion: str | None, *, nested: bool) -> str:
    if conversion not in {None, "r", "s", "a"}:
        return f"there is no conversion !{shown(str(conversion))}"
    if "{" in spec:
        return "a format spec inside a format spec can't hold a field" if nested else ""
    if not _formats(spec, text_only=conversion is not None):
        return f"no text or number can be formatted as {shown(spec)!r}"
    return ""


@lru_cache(maxsize=256)
def _formats(spec: str, *, text_only: bool) -> bool:
    return not _HUGE.search(spec) and any(_accepts(value, spec) for value in ("", 0, 0.5)[: 1 if text_only else 3])


def _accepts(value: object, spec: str) -> bool:
    try:
        format(value, spec)
    except ValueError:
        return False
    return True
