"""Template formats: which variables a text uses, and whether it could be rendered at all.

A format is one function from a text to the set of its variables. Names are canonical: two texts that ask for the same
values have equal sets, however their placeholders are spaced, repeated, ordered or filtered.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agenta_ai_server.tools.refine_prompt.formats import curly, fstring
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DEFAULT", "FORMATS", "TemplateSyntaxError", "shown"]


def _jinja2(text: str) -> frozenset[str]:
    from agenta_ai_server.tools.refine_prompt.formats import jinja

    return jinja.variables(text)


def _mustache(text: str) -> frozenset[str]:
    from agenta_ai_server.tools.refine_prompt.formats import mustache

    return mustache.variables(text)


#: The formats by the names that Agenta gives them. Each raises :class:`TemplateSyntaxError`, and nothing else.
#: Those that need a library load it when they are first used.
FORMATS: Final[Mapping[str, Callable[[str], frozenset[str]]]] = MappingProxyType(
    {"curly": curly.variables, "fstring": fstring.variables, "jinja2": _jinja2, "mustache": _mustache}
)

#: What a template is written in that doesn't say.
DEFAULT: Final = "curly"
