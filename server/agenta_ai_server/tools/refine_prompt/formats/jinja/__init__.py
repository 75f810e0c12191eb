"""``jinja2``: sandboxed, without a loader, and with ``{{$.json.path}}`` filled in by Agenta."""

from __future__ import annotations

import re
from collections import ChainMap
from typing import TYPE_CHECKING

import jinja2

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.jinja.environment import ENVIRONMENT
from agenta_ai_server.tools.refine_prompt.formats.jinja.expressions import NOTHING, Paths, inputs
from agenta_ai_server.tools.refine_prompt.formats.jinja.statements import TEXT, Statements
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import nodes

# Agenta's own idea of what Jinja2 leaves as it is.
_LITERAL = re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{#.*?#\}", re.DOTALL)


def variables(text: str) -> frozenset[str]:
    """The variables of a text, each with its path from an input: ``tier``, ``order.id``, ``order.items[].sku``.

    One that isn't shown, but decides what is, has a ``?`` before it: ``?tier``.

    What isn't there renders as nothing, so a wrong attribute breaks a prompt as silently as a wrong name.

    Raises:
        TemplateSyntaxError: Agenta could not render it.
    """
    masked = jsonpath.mask(text)
    used = inputs(_used(masked.text))
    return used | (masked.paths(_pieces(masked)) if masked.placeholders else NOTHING)


def is_blank(text: str) -> bool:
    """Whether a text that can be rendered says nothing, whatever values it is given."""
    return TEXT not in _used(jsonpath.mask(text).text)


def _used(text: str) -> Paths:
    reader = Statements()
    try:
        reader.run(_parse(text).body, ChainMap({"self": NOTHING}))
    except RecursionError:
        raise TemplateSyntaxError("This is nested too deep.", 1) from None
    return frozenset(reader.used)


def _parse(text: str) -> nodes.Template:
    try:
        return ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        fault = (error.message or "").rstrip(".")
        raise TemplateSyntaxError(f"Jinja2 can't read this: {shown(fault, 200)}.", error.lineno) from None
    except (ValueError, OverflowError):
        raise TemplateSyntaxError("Jinja2 can't read this: a number is too long.", 1) from None


def _pieces(masked: jsonpath.Masked) -> Iterator[tuple[str, bool]]:
    """A masked text, each piece with whether Agenta fills in JSONPaths there: all but comments and raw."""
    start = 0
    for match in _LITERAL.finditer(masked.original):
        yield masked.text[start : match.start()], True
        yield masked.text[match.start() : match.end()], False
        start = match.end()
    yield masked.text[start:], True
