"""Template formats whose texts are read and not rendered: ``curly`` and ``fstring``; and what all formats share."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agenta_ai_server.tools.refine_prompt.formats import curly, fstring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# For each format that is read: what returns the variables of a text, or raises ``TemplateSyntaxError``. Names are
# canonical: two texts that ask for the same values have equal sets, however these are spaced, repeated or ordered.
READ: Final[Mapping[str, Callable[[str], frozenset[str]]]] = MappingProxyType(
    {"curly": curly.variables, "fstring": fstring.variables}
)
# The formats that are rendered.
RENDERED: Final = ("jinja2", "mustache")
# All formats, by the names that Agenta gives them.
FORMATS: Final = (*READ, *RENDERED)
# What a template is written in that doesn't say.
DEFAULT: Final = "curly"
