"""Template formats: which variables a text uses, and whether it could be rendered at all.

Names are canonical: two texts that ask for the same values have equal sets, however their placeholders are spaced,
repeated, ordered or filtered.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agenta_ai_server.tools.refine_prompt.formats import comparison, curly, fstring
from agenta_ai_server.tools.refine_prompt.formats.syntax import Demand, TemplateSyntaxError, is_blank, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai_server.tools.refine_prompt.formats.comparison import Compare

__all__ = ["DEFAULT", "FORMATS", "Demand", "Format", "TemplateSyntaxError", "shown"]


@dataclass(frozen=True, slots=True)
class Format:
    """A template format.

    Attributes:
        variables: The variables of a text. Raises :class:`TemplateSyntaxError`, and nothing else, for a text that could
            not be rendered.
        is_blank: Whether a text that can be rendered says nothing, whatever values it is given.
        compare: The variables that were lost and those that were invented, from the old ones and the new ones.
    """

    variables: Callable[[str], frozenset[str]]
    is_blank: Callable[[str], bool]
    compare: Compare


# Formats that need a library load it when they are first used.


def _jinja2_variables(text: str) -> frozenset[str]:
    from agenta_ai_server.tools.refine_prompt.formats import jinja

    return jinja.variables(text)


def _jinja2_is_blank(text: str) -> bool:
    from agenta_ai_server.tools.refine_prompt.formats import jinja

    return jinja.is_blank(text)


def _mustache_variables(text: str) -> frozenset[str]:
    from agenta_ai_server.tools.refine_prompt.formats import mustache

    return mustache.variables(text)


def _mustache_is_blank(text: str) -> bool:
    from agenta_ai_server.tools.refine_prompt.formats import mustache

    return mustache.is_blank(text)


#: The formats by the names that Agenta gives them.
FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "curly": Format(curly.variables, is_blank, comparison.plain),
        "fstring": Format(fstring.variables, is_blank, comparison.plain),
        "jinja2": Format(_jinja2_variables, _jinja2_is_blank, comparison.jinja2),
        "mustache": Format(_mustache_variables, _mustache_is_blank, comparison.mustache),
    }
)

#: What a template is written in that doesn't say.
DEFAULT: Final = "curly"
