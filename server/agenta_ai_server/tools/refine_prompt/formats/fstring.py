"""``fstring``: what Python's ``str.format`` reads. It is never called: a user's template could walk our objects."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING

from agenta_ai_server.tools.refine_prompt.formats.syntax import Demand, Extent, TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.tools.refine_prompt.formats.jsonpath import Paths

_FORMATTER = Formatter()
_BRACE = re.compile("[{}]")
# One placeholder may ask for gigabytes of padding.
_HUGE = re.compile(r"\d{5}")
# No input of a prompt is named like this, but the braces of a JSON example read so.
_NO_NAME = re.compile(r"""^\s|\s$|^$|["',\n]""")


# A field inside a format spec is mostly a width or a precision, and any number is as good as another.
_WIDTH = "5"
# Longer than what any spec is taken to show.
_LONG = "x" * 10_000
# A value of each kind, by what a spec that doesn't take it demands. Negative, since :c takes only some numbers.
_KINDS = {"no text": "x", "no whole number": -1, "no fraction": 1.5}


def variables(text: str, _paths: Paths | None = None) -> frozenset[str]:
    """The variables of a text, each with its path, as written: blanks belong to the name here.

    A name that stands inside a format spec, where its value is not shown, begins with a colon. With the variables come
    the demands of the specs, ``total:no text``, that a value of the name must meet, and how much of it they show.

    Raises:
        TemplateSyntaxError: ``str.format`` with named values could not render it.
    """
    return frozenset(_variables(text, 0, text, prefix=""))


def _variables(text: str, start: int, piece: str, *, prefix: str) -> Iterator[str]:
    for offset, name, spec, conversion in _fields(text, start, piece):
        reason = _name_fault(name) or _field_fault(spec, conversion, nested=bool(prefix))
        _refuse(reason, name, text, offset)
        yield prefix + name
        if "{" in spec:
            inner = text.find(spec, offset + len(name))
            yield from _variables(text, inner, spec, prefix=":")
            spec = _filled(spec)
        takes_none_of = _refused_kinds(spec, text_only=conversion is not None)
        _refuse(_spec_fault(spec, takes_none_of), name, text, offset)
        for kind in takes_none_of:
            yield Demand(f"{prefix}{name}:{kind}")
        yield Extent(prefix + name, _most_characters(spec))


def _refuse(reason: str, name: str, text: str, offset: int) -> None:
    if reason:
        message = f"{{{shown(name)}}} can't be rendered: {reason}. A literal brace is written twice."
        raise TemplateSyntaxError.at(message, text, offset)


def _filled(spec: str) -> str:
    """A format spec with a number in the place of each field inside of it."""
    return "".join(literal + (_WIDTH if name is not None else "") for literal, name, _, _ in _FORMATTER.parse(spec))


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
    return "this isn't the name of an input" if _NO_NAME.search(str(root)) else ""


def _field_fault(spec: str, conversion: str | None, *, nested: bool) -> str:
    if conversion not in {None, "r", "s", "a"}:
        return f"there is no conversion !{shown(str(conversion))}"
    return "a format spec inside a format spec can't contain a field" if nested and "{" in spec else ""


def _spec_fault(spec: str, refused: frozenset[str]) -> str:
    return f"no text or number can be formatted as {shown(spec)!r}" if refused >= _KINDS.keys() else ""


@lru_cache(maxsize=256)
def _refused_kinds(spec: str, *, text_only: bool) -> frozenset[str]:
    """The kinds of values that a spec doesn't take. After a conversion, each value is a text."""
    if _HUGE.search(spec):
        return frozenset(_KINDS)
    refused = frozenset(kind for kind, value in _KINDS.items() if not _shows(value, spec))
    if not text_only:
        return refused
    return frozenset(_KINDS if "no text" in refused else ())


@lru_cache(maxsize=256)
def _most_characters(spec: str) -> float:
    """How much a spec shows of a text. A number is shown whole."""
    try:
        shown_characters = len(format(_LONG, spec).strip())
    except (ValueError, OverflowError):
        return math.inf
    return shown_characters if shown_characters < len(_LONG) else math.inf


def _shows(value: object, spec: str) -> bool:
    # A precision of 0 leaves nothing of a text.
    try:
        return bool(format(value, spec).strip())
    except (ValueError, OverflowError):
        return False
