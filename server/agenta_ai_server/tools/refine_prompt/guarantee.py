"""The rules that a refinement keeps, so that it can take the place of the prompt that it refines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agenta_ai_server.tools.refine_prompt.template import Text


def violations(old: Sequence[Text], new: Sequence[tuple[object, object]]) -> list[Violation]:
    """Return the rules that are broken if ``new`` takes the place of ``old``; none if it may.

    Args:
        old: The texts that were sent, each as a message.
        new: Role and content of each message that came back.
    """
    if len(new) != len(old):
        return [Violation("messages", f"The refinement has {len(new)} messages where there were {len(old)}.")]
    pairs = zip(old, new, strict=True)
    return [violation for index, (text, answer) in enumerate(pairs) for violation in _of_message(index, text, *answer)]


def _of_message(index: int, text: Text, role: object, content: object) -> Iterator[Violation]:
    if role != text.role:
        yield Violation(f"messages[{index}].role", f"The refinement changed the role of {text.path} from {text.role}.")
    if not isinstance(content, str):
        yield Violation(f"messages[{index}].content", f"The refinement has no text for {text.path}.")
    elif not content.strip():
        yield Violation(f"messages[{index}].content", f"The refinement left {text.path} empty.")
