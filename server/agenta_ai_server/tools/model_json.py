"""JSON as models write it: bare, or in a Markdown fence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.tools import strict_json

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

FENCE = "```"


def parse(text: str, *, exact: bool = True) -> Json:
    """Return the value that a model wrote, and nothing else.

    Args:
        text: As the model wrote it.
        exact: As for :func:`~agenta_ai_server.tools.strict_json.parse`.

    Raises:
        ValueError: It isn't JSON, or JSON that readers understand differently.
        TooManyValues: As for :func:`~agenta_ai_server.tools.strict_json.parse`.
    """
    return strict_json.parse(_without_fence(text.strip().removeprefix("\ufeff")), exact=exact)


def _without_fence(text: str) -> str:
    """Return the content of a Markdown fence, if the text is nothing but that."""
    first, _, rest = text.partition("\n")
    language = first.removeprefix(FENCE).strip()
    if first.startswith(FENCE) and rest.endswith(FENCE) and (not language or language.isalnum()):
        return rest.removesuffix(FENCE)
    return text
