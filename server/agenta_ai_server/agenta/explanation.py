"""Extracts Agenta's own message about a failure, for the operator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agenta_ai_server.domain.listener import CallListener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agenta_ai_server.agenta.routes.reply import Reply
    from agenta_ai_server.domain.call import Call, UpstreamRequest
    from agenta_ai_server.domain.values import Json

_MAX_CHARACTERS = 400
# The words of the message, times what was sent, in characters: each word is looked for in it. A prompt of 5,000
# characters leaves room for any message, and one of 100,000 for ten words.
_MAX_SEARCHED = 1_000_000
_SECRETS = re.compile(
    r"(?i)\b(?:apikey|bearer|secret|basic)\s+\S+"  # credentials with their scheme
    r"|\b(?:sk|pk|rk|gsk|xai|hf|AIza)[-_]?[\w*-]{6,}"  # keys of providers, masked ones too
    r"|\b[\w-]{8,}\.[\w-]{20,}(?:\.[\w-]+)?"  # tokens, and keys of Agenta
    r"|\b[0-9a-f]{24,}\b|\S{80,}"
    r"|https?://\S+"
)


def explain(reply: Reply, sent: Json, secrets: Iterable[str] = ()) -> str:
    """Return Agenta's own message for the operator, without secrets, addresses and texts of the prompt.

    Only its beginning if much was sent, so that this takes a few milliseconds.

    Args:
        reply: What Agenta answered.
        sent: What was sent; no three words of it in a row remain, and no long word.
        secrets: What must not remain besides what looks like a secret.
    """
    if reply.failed is None or not reply.failed.message:
        return ""
    message = " ".join(reply.failed.message[: 4 * _MAX_CHARACTERS].split())
    for secret in secrets:
        message = message.replace(secret, "…")
    texts = list(_texts(sent))
    all_words = _SECRETS.sub("…", message)[:_MAX_CHARACTERS].split()
    words = all_words[: _MAX_SEARCHED // max(sum(map(len, texts)), 1)]
    if not words:
        return ""
    sent_words = " ".join(" ".join(text.split()) for text in texts)
    hidden = {
        place
        for begin in range(len(words))
        for length in (1, 3)
        if (window := words[begin : begin + length]) and len(window) == length
        if (length > 1 or len(window[0]) >= 16) and " ".join(window).strip("'\"[](),.:") in sent_words
        for place in range(begin, begin + length)
    }
    shown = ["…" if place in hidden else word for place, word in enumerate(words)]
    return " ".join(shown if len(words) == len(all_words) else [*shown, "…"])


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


class LastExplanation(CallListener):
    """Keeps what Agenta said about the last request.

    Attributes:
        last: The sentence; empty if it said none.
    """

    def __init__(self) -> None:
        self.last = ""

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        """Keep it."""
        self.last = request.explanation
