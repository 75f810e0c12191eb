"""Finds the inputs of a deployed prompt: those that it declares, and those that its texts use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, FORMATS, READ
from agenta_ai_server.tools.refine_prompt.formats.syntax import Demand
from agenta_ai_server.tools.refine_prompt.rendering.jinja import JinjaText
from agenta_ai_server.tools.refine_prompt.rendering.mustache import MustacheText
from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

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
        structured: Those of which a text uses parts or elements, so that they are objects or lists.
    """

    declared: tuple[str, ...]
    used: frozenset[str]
    possible: frozenset[str] = frozenset()
    structured: frozenset[str] = frozenset()

    @property
    def needed(self) -> tuple[str, ...]:
        """All that a run must have: the declared ones in their order, then the others by name."""
        return (*self.declared, *sorted(self.used.difference(self.declared)))


def read_inputs(prompt: Mapping[str, Any]) -> PromptInputs:
    """Return the inputs of a prompt.

    Its texts are parsed and never rendered, so that they need no process of their own. A hostile one takes a few
    seconds, which only the commands spend that call this, and no server.

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
    found = _Found(declared)
    for text in texts(prompt):
        if read := READ.get(name):
            found.add_variables(name for name in read(text) if not isinstance(name, Demand))
        elif name == "jinja2":
            jinja = JinjaText(text, {})
            found.add_variables(jinja.names | jinja.paths)
        else:
            found.add_mustache(MustacheText(text, {}))
    return PromptInputs(
        declared, frozenset(found.used), frozenset(found.possible - found.used), frozenset(found.structured)
    )


class _Found:
    """The inputs that were found in the texts so far."""

    def __init__(self, declared: Collection[str]) -> None:
        self.used: set[str] = set()
        self.possible: set[str] = set()
        self.structured: set[str] = set()
        self._declared = declared

    def add_variables(self, variables: Iterable[str]) -> None:
        for variable in variables:
            # A declared input may have a dot in its name.
            name, is_part = (variable, False) if variable in self._declared else _input(variable)
            if name:
                self.used.add(name)
                self.structured |= {name} if is_part else set()

    def add_mustache(self, text: MustacheText) -> None:
        self.add_variables(text.paths)
        root = Shape("")
        text.survey(root)
        for name, shape in root.keys.items():
            (self.possible if shape.fallback else self.used).add(name)
            if shape.keys or shape.each:
                self.structured.add(name)


def texts(prompt: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a prompt's messages: each content, or each text part of it."""
    for message in prompt["messages"]:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _input(variable: str) -> tuple[str, bool]:
    """Return the input that a variable asks for, and whether it is only a part of it; no name for a search in all."""
    pattern = _ROOT if variable.startswith("$") else _FIRST_NAME
    found = pattern.match(variable)
    if found is None:
        return ("", False) if pattern is _ROOT else (variable, False)
    return next(filter(None, found.groups())), found.end() < len(variable)
