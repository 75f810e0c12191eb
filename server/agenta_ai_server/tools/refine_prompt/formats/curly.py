"""``curly``: ``{{name}}``, ``{{a.b}}``, ``{{$.json.path}}``, ``{{/json/pointer}}``, and no logic."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agenta_ai_server.tools.refine_prompt.formats.jsonpath import Paths
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

# A name with nothing in it that has to be looked at.
_PLAIN = re.compile(r"\{\{\s*(\w[\w.-]*)\s*\}\}")


def variables(text: str, paths: Paths | None = None) -> frozenset[str]:
    """The variables of a text, as written but for the blanks around them.

    Agenta resolves whatever stands between two braces and the next two in the same line, so nearly everything is a
    name there, and a lone pair is literal text.

    Args:
        text: The text.
        paths: The JSONPaths of the template that it belongs to; ``None`` if it stands alone.

    Raises:
        TemplateSyntaxError: A name that Agenta can resolve to no value at all.
    """
    plain = _PLAIN.findall(text)
    if text.count("{") + text.count("}") == 4 * len(plain):
        return frozenset(plain)
    found: dict[str, str] = {}
    paths = paths or Paths()
    end = 0
    *closed, _ = text.split("}}")
    for segment in closed:
        end += len(segment)
        name = _placeholder(segment)
        if name is not None and name not in found:
            found[name] = _checked(name, text, end, paths)
        end += len("}}")
    return frozenset(found.values())


def placeholders(text: str) -> Iterator[str]:
    """Yield the name in each placeholder, as often as it occurs, whether it can be resolved or not."""
    *closed, _ = text.split("}}")
    for segment in closed:
        if (name := _placeholder(segment)) is not None:
            yield name


def _placeholder(segment: str) -> str | None:
    """The name that the braces after this segment close, if it holds the braces that open it.

    Only blanks around a name may span lines, so at most one line counts: the last, and the braces that end the one
    before. Agenta's regular expression says the same in less, and in cubic time.
    """
    before, _, line = segment.rstrip().rpartition("\n")
    if before.rstrip().endswith("{{"):
        return line.strip()
    _, opened, name = line.partition("{{")
    return name.strip() if opened else None


def _checked(name: str, text: str, end: int, paths: Paths) -> str:
    if name.isidentifier():
        return name
    start = text.rfind("{{", 0, end)
    if name.startswith("$"):
        return paths.canonical(name, text, start)
    if not name.strip("."):
        message = f"{{{{{shown(name)}}}}} can't be resolved: there must be a name between the braces."
        raise TemplateSyntaxError.at(message, text, start)
    if not name.startswith("/") and ("[" in name or "]" in name):
        message = f"{{{{{shown(name)}}}}} can't be resolved: write an index as items.0, or use a JSONPath."
        raise TemplateSyntaxError.at(message, text, start)
    return name
