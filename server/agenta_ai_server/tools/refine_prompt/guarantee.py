"""Checks the rules that let a refinement replace the original prompt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.tools.refine_prompt.formats import READ, work
from agenta_ai_server.tools.refine_prompt.formats.jsonpath import Paths
from agenta_ai_server.tools.refine_prompt.formats.syntax import Demand, TemplateSyntaxError, compared, is_blank, shown
from agenta_ai_server.tools.refine_prompt.rendering.verdict import Fault
from agenta_ai_server.tools.refine_prompt.template import TemplateError, cannot_render
from agenta_ai_server.tools.workers.pool import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from agenta_ai_server.tools.computing import Computing
    from agenta_ai_server.tools.refine_prompt.template import Template, Text
    from agenta_ai_server.tools.workers.pool import Workers

MAX_NAMES = 3
# With twice as many, the answer would come near the 4 MiB that clients read by default.
MAX_REFINED_CHARACTERS = 200_000

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Guarantee:
    """Checks prompts and refinements. Templates in ``jinja2`` and ``mustache`` are rendered in processes of their own.

    Args:
        computing: Compares texts in the formats that aren't rendered.
        workers: Render the others.
    """

    def __init__(self, computing: Computing, workers: Workers) -> None:
        self._computing = computing
        self._workers = workers

    async def check(self, prompt: Template, key: Hashable) -> None:
        """Check that each text of a prompt can be rendered in its format, if that is one that is rendered.

        Args:
            prompt: The prompt.
            key: Who it is for; the templates of one key are rendered one after the other.

        Raises:
            TemplateError: It can't, or not within the limits.
            WorkerFailed: No process could render it, for a reason that has nothing to do with the prompt.
        """
        if prompt.variables is not None:
            return
        try:
            faults = await self._ask("read templates", prompt, key)
        except LimitExceeded as error:
            raise TemplateError(f"The template can't be checked: {error}.") from None
        if faults:
            index, description = faults[0].index, faults[0].description
            if index is None:
                raise TemplateError(f"The template can't be checked: {description}.")
            raise TemplateError(cannot_render(prompt.texts[index], prompt.template_format, description))

    async def violations(
        self, prompt: Template, new: Sequence[tuple[object, object]], key: Hashable
    ) -> list[Violation]:
        """Return the rules that are broken if ``new`` takes the place of the prompt's texts; none if it may.

        Args:
            prompt: The template, which has been checked; each of its texts was sent as a message.
            new: Role and content of each message that came back.
            key: Who it is for.

        Raises:
            WorkerFailed: No process could render it, for a reason that has nothing to do with the prompt.
        """
        if broken := list(_structural_violations(prompt, new)):
            return broken
        contents = [str(content) for _, content in new]
        if broken := list(control_violations(prompt, contents)):
            return broken
        if prompt.variables is not None:
            size = sum(map(work, contents)) + sum(work(text.content) for text in prompt.fixed)
            return await self._computing.run(key, lambda: list(variable_violations(prompt, contents)), size)
        try:
            faults = await self._ask("compare templates", prompt, key, new=contents)
        except LimitExceeded as error:
            return [Violation("messages", f"The refinement can't be checked: {error}.")]
        return [_violation(prompt, fault) for fault in faults]

    async def _ask(self, task: str, prompt: Template, key: Hashable, **more: Sequence[str]) -> list[Fault]:
        request = {
            "task": task,
            "template_format": prompt.template_format,
            "old": [text.content for text in prompt.texts],
            "fixed": [text.content for text in prompt.fixed],
            **more,
        }
        return [Fault(*fault) for fault in await self._workers.ask(request, key)]


def _violation(prompt: Template, fault: Fault) -> Violation:
    if fault.kind == "complex":
        return Violation("messages", f"The refinement can't be checked: {fault.description}.")
    if fault.index is None:
        return Violation("messages", fault.description)
    text, field = prompt.texts[fault.index], f"messages[{fault.index}].content"
    if fault.kind == "empty":
        return Violation(field, f"The refinement left {text.path} empty.")
    why = cannot_render(text, prompt.template_format, fault.description)
    return Violation(field, f"The refinement of {why}")


def _structural_violations(prompt: Template, new: Sequence[tuple[object, object]]) -> Iterator[Violation]:
    old = prompt.texts
    if len(new) != len(old):
        yield Violation("messages", f"The refinement has {_messages(len(new))} where there were {len(old)}.")
        return
    # Before anything slow is parsed.
    if sum(len(content) for _, content in new if isinstance(content, str)) > MAX_REFINED_CHARACTERS:
        yield Violation("messages", f"The refinement has more than {MAX_REFINED_CHARACTERS:,} characters.")
        return
    for index, (text, (role, content)) in enumerate(zip(old, new, strict=True)):
        if role != text.role:
            description = f"The refinement changed the role of {text.path} from {text.role}."
            yield Violation(f"messages[{index}].role", description)
        if not isinstance(content, str):
            yield Violation(f"messages[{index}].content", f"The refinement has no text for {text.path}.")
        elif not content.strip():
            yield Violation(f"messages[{index}].content", f"The refinement left {text.path} empty.")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count or 'no'} messages"


def control_violations(prompt: Template, contents: Sequence[str]) -> Iterator[Violation]:
    """Yield a violation for each text that has control characters which the prompt doesn't have.

    Models write a NUL where they mean an accented letter.
    """
    found = [_CONTROLS.findall(content) for content in contents]
    if not any(found):
        return
    known = {control for text in prompt.texts for control in _CONTROLS.findall(text.content)}
    for index, (text, written) in enumerate(zip(prompt.texts, found, strict=True)):
        if invented := sorted(set(written) - known):
            listed = ", ".join(f"U+{ord(control):04X}" for control in invented[:MAX_NAMES])
            description = f"The refinement put control characters into {text.path}: {listed}."
            yield Violation(f"messages[{index}].content", description)


def variable_violations(prompt: Template, contents: Sequence[str]) -> Iterator[Violation]:
    """Yield a violation for each text that can't be read or is blank, and for lost and invented variables.

    Only for the formats in ``READ``; those of the others are compared by rendering.
    """
    names_in = READ[prompt.template_format]
    found: set[str] = set()
    paths, unreadable = Paths(), False
    for index, (text, content) in enumerate(zip(prompt.texts, contents, strict=True)):
        try:
            found |= names_in(content, paths)
        except TemplateSyntaxError as error:
            unreadable = True
            yield _violation(prompt, Fault(index, "unreadable", str(error)))
        if is_blank(content) and not is_blank(text.content):
            yield _violation(prompt, Fault(index, "empty", ""))
    if unreadable:
        return
    paths = Paths()
    fixed = frozenset[str]().union(*(_variables_if_any(prompt, text, paths) for text in prompt.fixed))
    old = fixed | (prompt.variables or frozenset())
    lost, invented = compared(old, found | fixed)
    demands = {name for name in invented if isinstance(name, Demand)}
    for verb, names in (("lost", lost), ("invented", invented - demands)):
        if names:
            noun = f"variable{'s' if len(names) > 1 else ''}"
            yield Violation("messages", f"The refinement {verb} the {noun} {_listed(names, prompt.template_format)}.")
    if demands:
        listed = _listed(demands, prompt.template_format)
        yield Violation("messages", f"The refinement has a format specification that takes fewer values: {listed}.")


def _variables_if_any(prompt: Template, text: Text, paths: Paths) -> frozenset[str]:
    """The variables of a text that stays as it is. If it can't be rendered, that isn't for a refinement to mend."""
    try:
        return READ[prompt.template_format](text.content, paths)
    except TemplateSyntaxError:
        return frozenset()


def _listed(names: Iterable[str], template_format: str) -> str:
    opening, closing = ("{", "}") if template_format == "fstring" else ("{{", "}}")
    some = sorted(names)
    more = f" and {len(some) - MAX_NAMES} more" if len(some) > MAX_NAMES else ""
    return ", ".join(f"{opening}{shown(name)}{closing}" for name in some[:MAX_NAMES]) + more
