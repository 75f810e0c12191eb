"""``mustache``: sections and inverted sections, read by the library that Agenta renders with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mystace import MystaceError, mustache_tokenizer
from mystace.tokenize import TokenType

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown
from agenta_ai_server.tools.refine_prompt.formats.syntax import is_blank as blank

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mystace.tokenize import TokenTuple

# Far deeper than anybody writes, and a bound on the length of names.
_MAX_DEPTH = 64
_OPENS = {TokenType.SECTION: "#", TokenType.INVERTED_SECTION: "^"}
# Agenta looks for these before the engine does, in comments and between other delimiters too.
_REFUSED = re.compile(r"\{\{\{?\s*(?:(?P<empty>\}\})|(?P<partial>>)[^{}]*\}\}|(?P<pointer>/[^{}/]*/[^{}]*)\}\})")
_WHY = {
    "empty": "A tag needs a name.",
    "partial": "There are no partials here.",
    "pointer": "There are no JSON Pointers in mustache; {{$.a.b}}, a JSONPath, does the same.",
}


def variables(text: str) -> frozenset[str]:
    """The variables of a text: ``name``, ``#section``, ``^inverted``, and ``#section/name`` for a name inside one.

    A name inside a section is looked up in the section's value first, so outside of it would be another variable. An
    inverted section has no value, and names inside it are those of its surroundings.

    Raises:
        TemplateSyntaxError: Agenta could not render it.
    """
    masked = jsonpath.mask(text)
    refused = _REFUSED.search(text)
    if refused:
        raise TemplateSyntaxError.at(_WHY[refused.lastgroup or ""], text, refused.start())
    # The tokenizer takes quadratic time in the number of lines, and this question doesn't depend on them. A vertical
    # tab is as blank as a line feed, of the same length, and no part of a name that differs by nothing else.
    flat = masked.text.replace("\n", "\v")
    tokens = _tokens(flat, text)
    names = frozenset(name.replace("\v", "\n") for name in _names(_located(tokens, flat), text))
    return names | masked.paths((token.data, token.type is TokenType.LITERAL) for token in tokens)


def is_blank(text: str) -> bool:
    """Whether a text that can be rendered says nothing, whatever values it is given."""
    return not any(map(_shows, _tokens(jsonpath.mask(text).text.replace("\n", "\v"), text)))


def _shows(token: TokenTuple) -> bool:
    if token.type is TokenType.LITERAL:
        # The mark of a JSONPath is a control character, but stands for a value.
        return "\0" in token.data or not blank(token.data)
    return token.type in {TokenType.VARIABLE, TokenType.RAW_VARIABLE}


def _tokens(flat: str, text: str) -> list[TokenTuple]:
    try:
        return mustache_tokenizer(flat)
    except MystaceError as error:
        # What it could not close is open after the last thing that was closed, unless delimiters were changed.
        opened = max(text.find("{{", text.rfind("}}") + 1), 0)
        message = f"The tag can't be read: {str(error).rstrip('.')}."
        raise TemplateSyntaxError.at(message, text, opened) from None


def _names(tokens: Iterable[tuple[int, TokenTuple]], text: str) -> Iterator[str]:
    sections: list[tuple[TokenTuple, int, str]] = []
    scope = ""
    for at, token in tokens:
        _check(token, text, at)
        if token.type in {TokenType.VARIABLE, TokenType.RAW_VARIABLE}:
            yield scope + token.data
        elif token.type in _OPENS:
            yield f"{scope}{_OPENS[token.type]}{token.data}"
            sections.append((token, at, scope))
            scope += f"#{token.data}/" if token.type is TokenType.SECTION else ""
        elif token.type is TokenType.END_SECTION:
            if not sections or sections[-1][0].data != token.data:
                raise TemplateSyntaxError.at(f"No section {shown(token.data)} is open here.", text, at)
            *_, scope = sections.pop()
        if len(sections) > _MAX_DEPTH:
            raise TemplateSyntaxError.at("The sections are nested too deep.", text, at)
    for token, at, _ in sections:
        raise TemplateSyntaxError.at(f"The section {shown(token.data)} is never closed.", text, at)


def _located(tokens: list[TokenTuple], flat: str) -> Iterator[tuple[int, TokenTuple]]:
    """Each token with the offset of what it says, which the tokenizer keeps to itself."""
    at = 0
    for token in tokens:
        at = max(flat.find(token.data, at), at)
        yield at, token
        at += len(token.data)


def _check(token: TokenTuple, text: str, at: int) -> None:
    if token.type is TokenType.PARTIAL:
        raise TemplateSyntaxError.at(_WHY["partial"], text, at)
    if token.type in {TokenType.LITERAL, TokenType.COMMENT}:
        return
    if not token.data:
        raise TemplateSyntaxError.at(_WHY["empty"], text, at)
    if "\0" in token.data:
        raise TemplateSyntaxError.at("A tag can't hold another.", text, at)
