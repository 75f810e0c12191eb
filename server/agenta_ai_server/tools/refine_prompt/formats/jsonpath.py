"""``{{$.json.path}}``, which Agenta fills in by itself in three of the formats, before and after the engine runs."""

from __future__ import annotations

import re
from functools import lru_cache

from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

_MASK = "\0JPJp0123456789_{}\0"
MASK = re.compile(_MASK.format(r"\d+"))
"""What stands for a JSONPath while the engine runs; see :func:`mask`."""
_PLACEHOLDER = re.compile(r"\{\{\{?\s*(\$[^{}]*)\}\}\}?")
# A name in the normal form that can be written after a dot.
_PLAIN = re.compile(r"(?<!\.)\['([A-Za-z_]\w*)'\]")
# Longer than anybody writes. What reads a path takes up to some milliseconds for one of this length.
MAX_CHARACTERS = 500


def canonical(expression: str, text: str, offset: int) -> str:
    """Return a JSONPath in its one normal form, or raise if Agenta would not take it for one."""
    found = _parse(expression) if len(expression) <= MAX_CHARACTERS else ""
    if not found:
        message = f"{{{{{shown(expression)}}}}} isn't a JSONPath: write it like $.a.b or $['a'][0]."
        raise TemplateSyntaxError.at(message, text, offset)
    return found


@lru_cache(maxsize=1024)
def _parse(expression: str) -> str:
    import jsonpath

    if expression != "$" and not expression.startswith(("$.", "$[")):
        return ""
    try:
        return _PLAIN.sub(r".\1", str(jsonpath.compile(expression)))
    except MemoryError:
        raise
    except Exception:
        # Of any kind: the library leaves huge numbers and broken regular expressions to Python.
        return ""


def masked(number: int) -> str:
    """Return the mask of the JSONPath with this number."""
    return _MASK.format(number)


def mask(text: str, places: dict[str, int], start: int, end: int) -> tuple[str, frozenset[str]]:
    """Hide the JSONPaths in a part of a text from the engine, as Agenta does.

    Args:
        text: The whole text.
        places: The number of each JSONPath, which new ones are added to.
        start: Where the part begins.
        end: Where it ends.

    Returns:
        The part, in which a mask stands for each JSONPath, and the JSONPaths. Agenta's own masks are ``JP`` and a
        number. These have small letters as well: ``upper`` leaves Agenta's whole, and so never reaches the value, but
        it breaks these, and that is noticed. They have all digits, so that a filter that breaks a number in Agenta's
        breaks these, whatever that number is.
    """
    found = set()

    def hide(match: re.Match[str]) -> str:
        path = canonical(match[1].strip(), text, match.start())
        found.add(path)
        return masked(places.setdefault(path, len(places)))

    if "\0" in text:
        raise TemplateSyntaxError.at("A NUL character can't be rendered.", text, text.index("\0"))
    return _PLACEHOLDER.sub(hide, text[start:end]), frozenset(found)
