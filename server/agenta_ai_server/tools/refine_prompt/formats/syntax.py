"""Syntax errors in a text, with their place."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set


class TemplateSyntaxError(ValueError):
    """A text that could not be rendered, whatever values it were given.

    Args:
        message: What is wrong, a sentence for people. Valid UTF-8, and short, whatever the text.
        line: Where, counted from 1.
        column: Where in the line, counted from 1; ``None`` if only the line is known.
    """

    def __init__(self, message: str, line: int, column: int | None = None) -> None:
        self.message = message
        self.line = line
        self.column = column
        super().__init__(f"{message} ({self.position})")

    @classmethod
    def at(cls, message: str, text: str, offset: int) -> TemplateSyntaxError:
        """The error at one character of a text."""
        return cls(message, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))

    @property
    def position(self) -> str:
        """Where, for people: ``"line 3, column 7"``."""
        return f"line {self.line}" + (f", column {self.column}" if self.column else "")


class Demand(str):
    """Among the variables of a text, what it asks of the value of one: a refinement may drop it, but not add it."""


class Extent(Demand):
    """Among the variables of a text, how much of a value one place shows. A refinement may show more.

    Args:
        name: The variable.
        most: How many characters it shows of a long text; infinite if it shows all.
    """

    name: str
    most: float

    def __new__(cls, name: str, most: float) -> Extent:
        """Make one that says how much."""
        extent = super().__new__(cls, f"{name}:at most {most:g} character{'' if most == 1 else 's'}")
        extent.name, extent.most = name, most
        return extent


def compared(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
    """Return the names that were lost, and the names and demands that are new."""
    if old == new:
        return frozenset(), frozenset()
    lost = {name for name in old - new if not isinstance(name, Demand)}
    invented = {name for name in new - old if not isinstance(name, Extent)}
    before, after = _most(old), _most(new)
    shorter = (extent for name, extent in after.items() if name in before and extent.most < before[name].most)
    return lost, invented.union(shorter)


def _most(names: Set[str]) -> dict[str, Extent]:
    """Return the place of each variable that shows the most of it."""
    most: dict[str, Extent] = {}
    for extent in names:
        if isinstance(extent, Extent) and (extent.name not in most or extent.most > most[extent.name].most):
            most[extent.name] = extent
    return most


def shown(name: str, length: int = 60) -> str:
    """A piece of a text as a message can carry it: short, and without what breaks a terminal or UTF-8."""
    printable = name[:length] if name[:length].isprintable() else name[:length].encode("unicode_escape").decode()
    return printable if len(name) <= length and len(printable) <= length else printable[: length - 1] + "…"


def is_blank(text: str) -> bool:
    """Whether nothing of a text is visible: only white space, controls and formatting characters."""
    return all(character.isspace() or unicodedata.category(character) in {"Cc", "Cf"} for character in text)
