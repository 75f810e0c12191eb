"""The inputs of a deployed prompt: those that it declares, and those that its texts use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, FORMATS, READ
from agenta_ai_server.tools.refine_prompt.rendering.jinja import JinjaText
from agenta_ai_server.tools.refine_prompt.rendering.mustache import MustacheText
from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FIRST_NAME = re.compile(r"/?([^.\[/]+)")
# The input that a JSONPath in its normal form begins at; none for one that searches all inputs.
_ROOT = re.compile(r"\$(?:\.(\w+)|\['([^'\\]+)'\])")


class UnknownFormat(ValueError):
    """The prompt's template format isn't one of Agenta's. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """The inputs of one prompt.

    Attributes:
        declared: ``input_keys``, without all of which Agenta refuses a run; empty if it declares none.
        used: Those that a text uses.
        possible: Those that a text may use: names in a section of mustache, which may also be items of its value.
    """

    declared: tuple[str, ...]
    used: frozenset[str]
    possible: frozenset[str] = frozenset()

    @property
    def needed(self) -> tuple[str, ...]:
        """All that a run must have: the declared ones in their order, then the others by name."""
        return (*self.declared, *sorted(self.used.difference(self.declared)))


def read_inputs(prompt: Mapping[str, Any]) -> PromptInputs:
    """Return the inputs of a prompt.

    Args:
        prompt: What a revision holds as ``parameters.prompt``, with a list of ``messages``.

    Raises:
        UnknownFormat: Its ``template_format`` is unknown.
        TemplateSyntaxError: Agenta can't render one of its texts, whatever the inputs.
    """
    name = prompt.get("template_format") or DEFAULT
    if name not in FORMATS:
        raise UnknownFormat(f"Its template format {name!r} is unknown.")
    keys = prompt.get("input_keys")
    declared = tuple(dict.fromkeys(key for key in keys if isinstance(key, str))) if isinstance(keys, list) else ()
    used: set[str] = set()
    possible: set[str] = set()
    for text in texts(prompt):
        if read := READ.get(name):
            # A declared input may have a dot in its name.
            used |= {variable if variable in declared else _input(variable) for variable in read(text)}
            continue
        parsed = (JinjaText if name == "jinja2" else MustacheText)(text, {})
        used |= {_input(path) for path in parsed.paths}
        if isinstance(parsed, JinjaText):
            used |= parsed.names
            continue
        root = Shape("")
        parsed.survey(root)
        for key, shape in root.keys.items():
            (possible if shape.fallback else used).add(key)
    return PromptInputs(declared, frozenset(used - {""}), frozenset(possible - used))


def texts(prompt: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a prompt's messages: each content, or each text part of it."""
    for message in prompt["messages"]:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _input(variable: str) -> str:
    """Return the input that a variable is a part of; empty if it is a search in all of them."""
    if variable.startswith("$"):
        root = _ROOT.match(variable)
        return (root[1] or root[2]) if root else ""
    first = _FIRST_NAME.match(variable)
    return first[1] if first else variable
