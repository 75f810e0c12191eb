"""``jinja2``: sandboxed, without a loader, and with ``{{$.json.path}}`` filled in by Agenta."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING

import jinja2
from jinja2 import nodes

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.jinja.environment import ENVIRONMENT
from agenta_ai_server.tools.refine_prompt.formats.jinja.expressions import NOTHING
from agenta_ai_server.tools.refine_prompt.formats.jinja.statements import Statements
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown
from agenta_ai_server.tools.refine_prompt.formats.syntax import is_blank as blank

if TYPE_CHECKING:
    from collections.abc import Iterator


def variables(text: str) -> frozenset[str]:
    """The variables of a text, each with its path from an input: ``tier``, ``order.id``, ``order.items[].sku``.

    What isn't there renders as nothing, so a wrong attribute breaks a prompt as silently as a wrong name.

    Raises:
        TemplateSyntaxError: Agenta could not render it.
    """
    masked = jsonpath.mask(text)
    reader = Statements()
    try:
        reader.run(_parse(masked.text).body, ChainMap({"self": NOTHING}))
    except RecursionError:
        raise TemplateSyntaxError("This is nested too deep.", 1) from None
    return frozenset(reader.used) | (masked.paths(_pieces(masked.text)) if masked.placeholders else NOTHING)


def is_blank(text: str) -> bool:
    """Whether a text that can be rendered says nothing, whatever values it is given."""
    shown_by = _parse(jsonpath.mask(text).text).find_all(nodes.Output)
    return all(
        isinstance(node, nodes.TemplateData) and blank(node.data) for output in shown_by for node in output.nodes
    )


def _parse(text: str) -> nodes.Template:
    try:
        return ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        fault = (error.message or "").rstrip(".")
        raise TemplateSyntaxError(f"Jinja2 can't read this: {shown(fault, 200)}.", error.lineno) from None
    except (ValueError, OverflowError):
        raise TemplateSyntaxError("Jinja2 can't read this: a number is too long.", 1) from None


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text as Jinja2 cuts it, each piece with whether Agenta fills in JSONPaths there: all but comments and raw."""
    literal = False
    for _, kind, piece in ENVIRONMENT.lex(text):
        literal = kind == "raw_begin" or (literal and kind != "raw_end")
        yield piece, not literal and kind != "comment"
