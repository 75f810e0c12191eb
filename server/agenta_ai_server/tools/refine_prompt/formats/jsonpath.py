"""``{{$.json.path}}``, which Agenta fills in by itself in three of the formats, before and after the engine runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLACEHOLDER = re.compile(r"\{\{\{?\s*(\$[^{}]*)\}\}\}?")
# What no reader of JSONPath takes: a dot with nothing after it, and brackets or quotes that are empty or don't close.
_STRING = r"""'[^']*'|"[^"]*\""""
_INNER = rf"(?:[^\[\]'\"]|{_STRING}|\[(?:[^\[\]'\"]|{_STRING})++\])++"
_PATH = re.compile(rf"\$(?:\.{{1,2}}[^.\[\]'\"]++|(?:\.\.)?\[{_INNER}\])*+")
#: Stands for a placeholder in a masked text.
MARK = "\0"


def check(expression: str, text: str, offset: int) -> str:
    """Return a JSONPath, or raise if Agenta would not take it for one."""
    if _PATH.fullmatch(expression):
        return expression
    message = f"{{{{{shown(expression)}}}}} is no JSONPath: write it like $.a.b or $['a'][0]."
    raise TemplateSyntaxError.at(message, text, offset)


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose JSONPath placeholders are hidden from the engine.

    Attributes:
        original: The text itself.
        text: As long as the text, with a mark and blanks in place of each placeholder, so that positions stay true.
        placeholders: Offset and expression of each, in order.
    """

    original: str
    text: str
    placeholders: tuple[tuple[int, str], ...]

    def paths(self, pieces: Iterable[tuple[str, bool]]) -> frozenset[str]:
        """The JSONPaths in a masked text that the engine has cut to pieces.

        Args:
            pieces: All pieces in order, each with whether it is rendered; a comment, say, is not.
        """
        waiting = iter(self.placeholders)
        found = set()
        for piece, rendered in pieces:
            for offset, expression in islice(waiting, piece.count(MARK)):
                if rendered:
                    found.add(check(expression, self.original, offset))
        return frozenset(found)


def mask(text: str) -> Masked:
    """Hide the JSONPath placeholders of a text, as Agenta does."""
    if MARK in text:
        raise TemplateSyntaxError.at("A NUL character can't be rendered.", text, text.index(MARK))
    found = tuple((match.start(), match[1].strip()) for match in _PLACEHOLDER.finditer(text))
    masked = _PLACEHOLDER.sub(lambda match: MARK.ljust(len(match[0])), text)
    return Masked(text, masked, found)
