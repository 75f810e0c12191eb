"""The rules that a refinement keeps, so that it can take the place of the prompt that it refines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.tools.refine_prompt.formats import FORMATS, Demand, TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agenta_ai_server.tools.refine_prompt.template import Template, Text

MAX_NAMES = 3
# With twice as many, the answer would come near the 4 MiB that clients read by default.
MAX_REFINED_CHARACTERS = 200_000


def violations(prompt: Template, new: Sequence[tuple[object, object]]) -> list[Violation]:
    """Return the rules that are broken if ``new`` takes the place of the prompt's texts; none if it may.

    Args:
        prompt: The template; each of its texts was sent as a message.
        new: Role and content of each message that came back.
    """
    old = prompt.texts
    if len(new) != len(old):
        return [Violation("messages", f"The refinement has {_messages(len(new))} where there were {len(old)}.")]
    # Before anything is read that could take long.
    if sum(len(content) for _, content in new if isinstance(content, str)) > MAX_REFINED_CHARACTERS:
        return [Violation("messages", f"The refinement has more than {MAX_REFINED_CHARACTERS:,} characters.")]
    pairs = enumerate(zip(old, new, strict=True))
    broken = [violation for index, (text, message) in pairs for violation in _of_message(index, text, *message)]
    # Only what is whole can be compared: an empty text has lost its variables too, but that isn't the point then.
    return broken or list(_of_variables(prompt, [str(content) for _, content in new]))


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count or 'no'} messages"


def _of_message(index: int, text: Text, role: object, content: object) -> Iterator[Violation]:
    if role != text.role:
        yield Violation(f"messages[{index}].role", f"The refinement changed the role of {text.path} from {text.role}.")
    if not isinstance(content, str):
        yield Violation(f"messages[{index}].content", f"The refinement has no text for {text.path}.")
    elif not content.strip():
        yield Violation(f"messages[{index}].content", f"The refinement left {text.path} empty.")


def _of_variables(prompt: Template, contents: Sequence[str]) -> Iterator[Violation]:
    template_format = FORMATS[prompt.template_format]
    found: set[str] = set()
    unreadable = False
    for index, (text, content) in enumerate(zip(prompt.texts, contents, strict=True)):
        try:
            found |= template_format.variables(content)
            if template_format.is_blank(content) and not template_format.is_blank(text.content):
                yield Violation(f"messages[{index}].content", f"The refinement left {text.path} empty.")
        except TemplateSyntaxError as error:
            unreadable = True
            description = f"The refinement of {text.path} can't be rendered in the format {prompt.template_format}"
            yield Violation(f"messages[{index}].content", f"{description}: {error}.")
    if unreadable:
        return
    old, new = prompt.variables | prompt.fixed_variables, found | prompt.fixed_variables
    lost, invented = template_format.compare(old, new)
    demands = {name for name in invented if isinstance(name, Demand)}
    for verb, names in (("lost", lost), ("invented", invented - demands)):
        if names:
            noun = f"variable{'s' if len(names) > 1 else ''}"
            yield Violation("messages", f"The refinement {verb} the {noun} {_listed(names, prompt.template_format)}.")
    if demands:
        listed = _listed(demands, prompt.template_format)
        yield Violation("messages", f"The refinement has a format specification that takes fewer values: {listed}.")


def _listed(names: Iterable[str], template_format: str) -> str:
    opening, closing = ("{", "}") if template_format == "fstring" else ("{{", "}}")
    some = sorted(names)
    more = f" and {len(some) - MAX_NAMES} more" if len(some) > MAX_NAMES else ""
    return ", ".join(f"{opening}{shown(name)}{closing}" for name in some[:MAX_NAMES]) + more
