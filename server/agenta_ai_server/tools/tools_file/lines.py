"""Which line of a TOML document each key stands in. ``tomllib`` reads the values, and doesn't tell."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import TypeAlias

Place: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|\'[^\']*\'',
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_OTHER_VALUE = re.compile(r"[^,\]}#\n]+")


def locate(document: str) -> dict[Place, int]:
    """Return the lines of all keys and items, from 1, each by the path to its value.

    Args:
        document: TOML that ``tomllib`` has read: what isn't valid is not noticed here.
    """
    return _Locator(document).located()


def line_of(lines: dict[Place, int], place: Place) -> int:
    """Return the line of ``place``, or of what is nearest above it and has one; 1 for the document."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


class Lines:
    """The lines of a document's keys, found when one is first needed: a service without faults needs none.

    Args:
        document: As :func:`locate` takes it.
    """

    def __init__(self, document: str) -> None:
        self._document = document

    @cached_property
    def _located(self) -> dict[Place, int]:
        return locate(self._document)

    def of(self, place: Place) -> int:
        """Return the line of ``place``, see :func:`line_of`."""
        return line_of(self._located, place)


class _Locator:
    """Reads a document once, from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Place, int] = {}
        self._counted = (0, 1)
        self._tables: dict[Place, int] = {}

    def located(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip_blanks():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skip_blanks(self) -> str:
        """Go to the next sign that isn't blank and return it; nothing at the end."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()
        return self._text[self._at : self._at + 1]

    def _header(self) -> Place:
        is_item = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if is_item else 1
        place: Place = ()
        for key in self._keys():
            place = self._last_item((*place, key))
        self._at = self._text.index("]", self._at) + (2 if is_item else 1)
        if is_item:
            array = place[:-1] if isinstance(place[-1], int) else place
            index = self._tables.get(array, -1) + 1
            self._tables[array] = index
            place = (*array, index)
            self._note(array, start)
        self._note(place, start)
        return place

    def _last_item(self, place: Place) -> Place:
        """Return where a table's keys belong: in an array of tables, to its last item."""
        return (*place, self._tables[place]) if place in self._tables else place

    def _keys(self) -> list[str]:
        """Read a key, which may be dotted."""
        keys = []
        while True:
            self._skip_blanks()
            if bare := _BARE.match(self._text, self._at):
                keys.append(bare[0])
                self._at = bare.end()
            elif string := _STRING.match(self._text, self._at):
                keys.append(_unquoted(string[0]))
                self._at = string.end()
            if self._skip_blanks() != ".":
                return keys
            self._at += 1

    def _pair(self, table: Place) -> None:
        start = self._at
        place = table
        for key in self._keys():
            place = (*place, key)
            self._note(place, start)
        self._at = self._text.index("=", self._at) + 1
        self._value(place)

    def _value(self, place: Place) -> None:
        match self._skip_blanks():
            case "[":
                self._items(place, "]")
            case "{":
                self._items(place, "}")
            case _:
                value = _STRING.match(self._text, self._at) or _OTHER_VALUE.match(self._text, self._at)
                assert value is not None
                self._at = value.end()

    def _items(self, place: Place, end: str) -> None:
        """Read an array or an inline table."""
        self._at += 1
        index = 0
        while self._skip_blanks() != end:
            if self._text.startswith(",", self._at):
                self._at += 1
            elif end == "}":
                self._pair(place)
            else:
                item = (*place, index)
                self._note(item, self._at)
                self._value(item)
                index += 1
        self._at += 1

    def _note(self, place: Place, at: int) -> None:
        counted, line = self._counted
        line += self._text.count("\n", counted, at)
        self._counted = (at, line)
        self._lines.setdefault(place, line)


def _unquoted(key: str) -> str:
    # For tomllib alone each of hundreds of names would be a document.
    return str(tomllib.loads(f"key = {key}")["key"]) if "\\" in key else key[1:-1]
