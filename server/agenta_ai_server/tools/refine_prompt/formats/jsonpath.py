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
# Each of these limits is more than anybody writes. To parse a path of this length takes up to 20 ms,
MAX_CHARACTERS = 500
# because a filter within others is parsed again with each of them,
MAX_NESTING = 5
# and different paths with this length together take up to 0.2 s.
MAX_CHARACTERS_TOGETHER = 4_000
_NO_PATH = "isn't a JSONPath: write it like $.a.b or $['a'][0]"
# A range of letters that doesn't end in ASCII. Python compiles its letters one by one, up to 65,536 of them.
_LONG_RANGE = re.compile(r"-(\\?[^\x00-\x7f]|\\[uUN])")


class Paths:
    """The JSONPaths of one template, each of which is parsed once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._characters = 0

    def canonical(self, expression: str, text: str, offset: int) -> str:
        """Return a JSONPath in its one normal form.

        Raises:
            TemplateSyntaxError: Agenta would not take it for one, or it is too complex, or all of them are too long.
        """
        if expression not in self._found:
            self._characters += len(expression)
            if self._characters > MAX_CHARACTERS_TOGETHER:
                message = f"The JSONPaths have more than {MAX_CHARACTERS_TOGETHER:,} characters together: use fewer."
                raise TemplateSyntaxError.at(message, text, offset)
            self._found[expression] = canonical(expression, text, offset)
        return self._found[expression]


def canonical(expression: str, text: str, offset: int) -> str:
    """Return a JSONPath in its one normal form.

    Raises:
        TemplateSyntaxError: Agenta would not take it for one, or it is too complex.
    """
    try:
        return _parsed(expression)
    except ValueError as error:
        raise TemplateSyntaxError.at(f"{{{{{shown(expression)}}}}} {error}.", text, offset) from None


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> str:
    import jsonpath

    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"has more than {MAX_CHARACTERS} characters: shorten it")
    if expression != "$" and not expression.startswith(("$.", "$[")):
        raise ValueError(_NO_PATH)
    try:
        too_complex = _complexity(expression)
        normal = "" if too_complex else str(jsonpath.compile(expression))
    except MemoryError:
        raise
    except Exception:
        # Of any kind: the library leaves huge numbers and broken regular expressions to Python.
        raise ValueError(_NO_PATH) from None
    if too_complex:
        raise ValueError(too_complex)
    return _PLAIN.sub(r".\1", normal)


def _complexity(expression: str) -> str:
    """Say why a JSONPath takes long to parse, which the library's tokens show; empty if it doesn't."""
    from jsonpath import DEFAULT_ENV, token

    level = negations = 0
    for each in DEFAULT_ENV.lexer.tokenize(expression):
        if each.kind in (token.TOKEN_LBRACKET, token.TOKEN_LPAREN):
            level += 1
        elif each.kind in (token.TOKEN_RBRACKET, token.TOKEN_RPAREN):
            level -= 1
        elif each.kind == token.TOKEN_RE_PATTERN and _LONG_RANGE.search(each.value):
            return "has a regular expression with a range of letters beyond ASCII: list them, or use \\w"
        if each.kind != token.TOKEN_WHITESPACE:
            negations = negations + 1 if each.kind == token.TOKEN_NOT else 0
        if level + negations > MAX_NESTING:
            return f"is nested more than {MAX_NESTING} levels deep: simplify its filter"
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
