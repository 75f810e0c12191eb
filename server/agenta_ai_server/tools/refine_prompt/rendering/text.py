"""What both formats have in common: one text, ready to be rendered, and what can go wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from agenta_ai_server.tools.refine_prompt.formats import jsonpath

if TYPE_CHECKING:
    from collections.abc import Set

    from agenta_ai_server.tools.refine_prompt.rendering.inputs import Object
    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

# Surrounds each literal piece of a text, to distinguish it from values.
OPEN: Final = "\x01"
CLOSE: Final = "\x02"
# The most that may be rendered from one text, in characters.
MAX_OUTPUT: Final = 2_000_000
# The most tags that the texts of a prompt may have. Far more than anybody writes.
MAX_TAGS: Final = 1_000
# The most tokens that one text in Jinja2 may have: names, constants, operators and delimiters, and the prose between.
MAX_TOKENS: Final = 6_000

_TOO_MANY = f"it has more than {MAX_TAGS:,} tags, or a text with more than {MAX_TOKENS:,} tokens in its tags"
_MARKED = re.compile(f"{OPEN}[^{CLOSE}]*{CLOSE}")


class TooComplex(Exception):
    """Texts can't be checked in time.

    Args:
        why: What is too much, a sentence's end.
    """

    def __init__(self, why: str = _TOO_MANY) -> None:
        super().__init__(why)


class RenderError(Exception):
    """A text can't be rendered with some inputs. The message is for people.

    Args:
        message: What is wrong, without a full stop.
        line: Where, counted from 1; 0 if unknown.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a text shows with some inputs.

    Attributes:
        text: All of it.
        values: All but what stands in the text literally.
        paths: The JSONPaths in it, as they are masked.
    """

    text: str
    values: str
    paths: frozenset[str]

    @classmethod
    def of(cls, marked: str) -> Rendered:
        """Read what was rendered from a text whose literal pieces are marked."""
        values = _MARKED.sub(OPEN, marked)
        text = " ".join(marked.replace(OPEN, "").replace(CLOSE, "").split())
        return cls(text, values, frozenset(jsonpath.MASK.findall(values)))


class Text(Protocol):
    """One text of a prompt.

    Attributes:
        names: Of the inputs that it asks for, whether it is reached or not.
        paths: The JSONPaths in it, in their canonical form.
        constants: The texts that stand in its expressions.
        uses_chance: Whether it applies ``random`` or ``lipsum``, by its syntax tree.
        may_use_chance: Whether one of these words is anywhere in it.
    """

    names: frozenset[str]
    paths: frozenset[str]
    constants: frozenset[str]
    uses_chance: bool
    may_use_chance: bool

    def survey(self, root: Shape) -> None:
        """Find out what the text does with its inputs."""

    def render(self, inputs: Object, mode: str) -> Rendered:
        """Render it in a mode of :mod:`.inputs`. Raises :class:`RenderError`."""


class Format(Protocol):
    """What reads texts of a format."""

    def __call__(self, text: str, places: dict[str, int]) -> Text:
        """Read a text, with the number of each JSONPath. Raises ``TemplateSyntaxError`` or :class:`TooComplex`."""

    @staticmethod
    def tags(text: str) -> int:
        """Return how many tags a text has at the most, in linear time."""

    @staticmethod
    def compared(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
        """Return the names that were lost, and those that were invented."""


def marked(literal: str) -> str:
    """Mark a literal piece of a text; what stands for a JSONPath is a value."""
    at, pieces = 0, []
    for path in jsonpath.MASK.finditer(literal):
        pieces += [OPEN, literal[at : path.start()], CLOSE, path[0]]
        at = path.end()
    return "".join([*pieces, OPEN, literal[at:], CLOSE])
