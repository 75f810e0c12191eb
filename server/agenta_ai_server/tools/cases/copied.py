"""Finds expected texts that a refinement copied into the prompt. Cases may pass only because of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agenta_ai_server.tools.cases.expectations import Expectation
    from agenta_ai_server.tools.refine_prompt.template import Template

# Shorter ones are part of many words.
MIN_CHARACTERS = 3


@record
class Copied:
    """An expected text that is in the new prompt but wasn't in the old one.

    Attributes:
        case: Index of the case that expects it.
        text: As it was expected.
    """

    case: int
    text: str


def find_copied(old: Template, new: Template, expectations: Sequence[Expectation]) -> list[Copied]:
    """Return the expected texts that were copied. Case and white space don't matter."""
    before, after = (_plain(text.content for text in template.texts) for template in (old, new))
    return [
        Copied(index, text)
        for index, expectation in enumerate(expectations)
        for text in expectation.texts
        if len(plain := _plain([text])) >= MIN_CHARACTERS and plain in after and plain not in before
    ]


def _plain(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).casefold().split())
