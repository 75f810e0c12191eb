"""Template formats whose texts are read and not rendered: ``curly`` and ``fstring``; and what all formats share."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from agenta_ai_server.tools.refine_prompt.formats import curly, fstring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.tools.refine_prompt.formats.jsonpath import Paths

# Reading a field of ``fstring`` can take as long as reading so much prose, and reading a JSONPath even longer.
_CHARACTERS_OF_BRACE: Final = 15
_CHARACTERS_OF_DOLLAR: Final = 5_000


class Read(Protocol):
    """Reads texts of a format."""

    def __call__(self, text: str, paths: Paths | None = None, /) -> frozenset[str]:
        """Return the variables of a text.

        Names are canonical: two texts that ask for the same values have equal sets, however these are spaced, repeated
        or ordered.

        Args:
            text: The text.
            paths: The JSONPaths of the template that it belongs to; ``None`` if it stands alone.

        Raises:
            TemplateSyntaxError: It can't be read.
        """


# The formats that are read.
READ: Final[Mapping[str, Read]] = MappingProxyType({"curly": curly.variables, "fstring": fstring.variables})
# The formats that are rendered.
RENDERED: Final = ("jinja2", "mustache")
# All formats, by the names that Agenta gives them.
FORMATS: Final = (*READ, *RENDERED)
# What a template is written in that doesn't say.
DEFAULT: Final = "curly"


def work(text: str) -> int:
    """Return what it takes at most to read a text, or a template as JSON, in characters of prose."""
    # JSON may escape both.
    braces = text.count("{") + text.count("\\u007")
    dollars = text.count("$") + text.count("\\u0024")
    return len(text) + _CHARACTERS_OF_BRACE * braces + _CHARACTERS_OF_DOLLAR * dollars
