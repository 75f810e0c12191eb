"""``mustache``: sections and inverted sections, rendered by the library that Agenta renders with."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from mystace import MystaceError, create_mustache_tree
from mystace.mustache_tree import MustacheRenderer, MustacheTreeNode, TagType

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError
from agenta_ai_server.tools.refine_prompt.rendering.inputs import Object, note_miss
from agenta_ai_server.tools.refine_prompt.rendering.text import Rendered, RenderError, marked

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

_VARIABLES: Final = {TagType.VARIABLE, TagType.VARIABLE_RAW}
_SECTIONS: Final = {TagType.SECTION, TagType.INVERTED_SECTION}
# Far deeper than anybody writes.
_MAX_DEPTH = 64
# Agenta looks for these before the engine does, in comments and between other delimiters too.
_REFUSED = re.compile(r"\{\{\{?\s*(?:(?P<empty>\}\})|(?P<partial>>)[^{}]*\}\}|(?P<pointer>/[^{}/]*/[^{}]*)\}\})")
_SECTION = re.compile(r"\{\{\s*([#^/])\s*([^{}]*?)\s*\}\}")
_WHY = {
    "empty": "A tag needs a name.",
    "partial": "There are no partials here.",
    "pointer": "There are no JSON Pointers in mustache; {{$.a.b}}, a JSONPath, does the same.",
}
# What may come after an opening delimiter and isn't part of a name; and what comes before the closing one, for some.
_KINDS: Final = frozenset("!#^/>={&")
_TAG_ENDS: Final = {"=": "=", "{": "}"}
# Any of these can take the place of a line's end: the engine takes quadratic time in the number of lines, which matter
# for nothing but blanks here.
_BLANKS = "\x1c\x1d\x1e\x1f\x85\u2028\u2029"


class MustacheText:
    """One text in mustache.

    Args:
        text: The text itself.
        places: The JSONPaths of all texts, each with a number.

    Raises:
        TemplateSyntaxError: Agenta could not render it, whatever the inputs.
    """

    constants = frozenset[str]()
    may_use_chance = uses_chance = False

    def __init__(self, text: str, places: dict[str, int]) -> None:
        if refused := _REFUSED.search(text):
            raise TemplateSyntaxError.at(_WHY[refused.lastgroup or ""], text, refused.start())
        masked, self.paths = jsonpath.mask(text, places, 0, len(text))
        blank = next(blank for blank in _BLANKS if blank not in text)
        try:
            self._tree = create_mustache_tree(masked.replace("\n", blank))
        except (MystaceError, IndexError) as error:  # the latter for what closes nothing
            message = f"The tag can't be read: {str(error).rstrip('.')}."
            raise TemplateSyntaxError.at(message, text, _culprit(text)) from None
        names = set()
        for node, depth in _walk(self._tree, 0):
            if (
                node.tag_type is TagType.PARTIAL
                or depth > _MAX_DEPTH
                or not (node.data or node.tag_type is TagType.LITERAL)
            ):
                raise TemplateSyntaxError("A tag has no name, is a partial, or is nested too deeply.", 1)
            if node.tag_type is TagType.LITERAL:
                node.data = marked(node.data)
            else:
                node.data = node.data.replace(blank, "\n")
                names.add("^" * (node.tag_type is TagType.INVERTED_SECTION) + node.data)
        self.names = frozenset(names)

    def survey(self, root: Shape) -> None:
        """Find out what the text does with its inputs. A name in a section is taken to be an item of its value."""
        _survey(self._tree, [root], ())

    def render(self, inputs: Object, mode: str) -> Rendered:
        """Render the text in a mode of the inputs.

        Raises:
            RenderError: Agenta could not render it with these inputs.
        """
        root = _Root(inputs)
        try:
            # Not escaped, as in Agenta: a prompt isn't HTML.
            rendered = MustacheRenderer(self._tree).render(root, stringify=_stringified, html_escape_fn=str)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RenderError(str(error)) from None
        return Rendered.of(rendered)

    @staticmethod
    def tags(text: str) -> int:
        """Return how many tags a text has, by the delimiters in use at each place."""
        opening, closing, count, at = "{{", "}}", 0, 0
        while (at := text.find(opening, at)) >= 0:
            count += 1
            at += len(opening)
            kind = text[at : at + 1]
            found = _TAG_ENDS.get(kind, "") + closing
            end = text.find(found, at + (kind in _KINDS))
            if end < 0:
                break
            change = text[at + 1 : end].split() if kind == "=" else ()
            at = end + len(found)
            if len(change) == 2:
                opening, closing = change
        return count

    @staticmethod
    def compared(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
        """Return the names that were lost, and those that were invented.

        ``b.c`` in a section ``a`` may be ``a.b.c`` outside of it, so that only the steps of names are compared.
        """
        kept, known = _steps(new), _steps(old)
        lost = {name for name in old if not _steps({name}) <= kept or (name[0] == "^" and name not in new)}
        return lost, {name for name in new if not _steps({name}) <= known}


def _steps(names: Set[str]) -> set[str]:
    return {step for name in names for step in name.removeprefix("^").split(".") if step}


class _Root(dict[str, Any]):
    """The inputs; a name that isn't found in a section is looked for here at last."""

    def __init__(self, inputs: Object) -> None:
        super().__init__(inputs)
        self._inputs = inputs

    def __contains__(self, key: object) -> bool:
        if not super().__contains__(key):
            note_miss(self._inputs, key)
            return False
        return True


def _culprit(text: str) -> int:
    """Where the tag begins that closes nothing or isn't closed, unless delimiters were changed."""
    sections: list[re.Match[str]] = []
    for tag in _SECTION.finditer(text):
        if tag[1] != "/":
            sections.append(tag)
        elif not sections or sections.pop()[2] != tag[2]:
            return tag.start()
    # What has no end itself comes after the last thing that has one.
    unclosed = text.find("{{", text.rfind("}}") + 1)
    return unclosed if unclosed >= 0 else sections[-1].start() if sections else 0


def _stringified(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _walk(node: MustacheTreeNode, depth: int) -> Iterator[tuple[MustacheTreeNode, int]]:
    for child in node.children or ():
        yield child, depth
        yield from _walk(child, depth + 1) if depth <= _MAX_DEPTH else ()


def _survey(node: MustacheTreeNode, scopes: list[Shape], inside: tuple[tuple[str, Shape], ...]) -> None:
    """Follow the tags of one section.

    Args:
        node: The section.
        scopes: The inputs, and the values of the sections that it is in, from the outside.
        inside: The names of these sections, each with what it is the name of.
    """
    for child in node.children or ():
        if child.tag_type in _VARIABLES:
            _find(child.data, scopes, inside).uses.add("shown")
        elif child.tag_type in _SECTIONS:
            shape = _find(child.data, scopes, inside)
            shape.decides = True
            for scope in scopes[:-1]:
                _decide(child.data, scope)
            if child.tag_type is TagType.INVERTED_SECTION:
                shape.uses.add("condition")
                _survey(child, scopes, inside)
            else:
                value = type(shape)(f"{shape.name}[]") if shape.each is None else shape.each
                _survey(child, [*scopes, value], (*inside, (child.data, shape)))
                shape.uses.add("condition")
                if value.keys or "shown" in value.uses:
                    shape.each = value
                    shape.uses |= {"section", "list"}


def _decide(name: str, scope: Shape) -> None:
    """Note that something depends on an item of this scope, if it has one of this name."""
    found: Shape | None = scope
    for step in name.split("."):
        found = found.keys.get(step) if found else None
    if found:
        found.decides = True


def _find(name: str, scopes: list[Shape], inside: tuple[tuple[str, Shape], ...]) -> Shape:
    if name == ".":
        return scopes[-1]
    for known, shape in reversed(inside):
        if name == known:
            return shape
    first, *rest = name.split(".")
    shape = scopes[-1].key(first)
    input_ = scopes[0].keys.get(first)
    if len(scopes) > 1 and (input_ is None or input_.fallback):
        # Where a section is no more than a condition, its names are those of the inputs.
        outer = scopes[0].key(first)
        outer.fallback = True
        for step in rest:
            outer = outer.key(step)
    elif len(scopes) == 1:
        shape.fallback = False
    for step in rest:
        shape = shape.key(step)
    return shape
