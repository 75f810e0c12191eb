"""The differences between two lists of chat messages, as text for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from itertools import zip_longest
from typing import Any, Literal

from agenta_ai.terminal import one_line

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class MessageChange:
    """One message whose text was changed. ``str()`` is a unified diff for a terminal: control characters are escaped.

    Attributes:
        index: Position of the message, from 0.
        role: Its role.
        old: The text before. Parts other than text are shown as their type in brackets, ``[image_url]``.
        new: The text after.
    """

    index: int
    role: str
    old: str
    new: str

    def lines(self) -> list[str]:
        """Return the lines of the unified diff, without line breaks. Its heading names the message."""
        name = f"messages[{self.index}] {self.role}".rstrip()
        return list(unified_diff(_lines(self.old), _lines(self.new), f"old {name}", f"new {name}", lineterm=""))

    def words(self) -> list[tuple[Literal["=", "-", "+"], str]]:
        """Return the text in pieces, word by word: ``=`` for unchanged, ``-`` for removed, ``+`` for added pieces."""
        old, new = _WORDS.findall(self.old), _WORDS.findall(self.new)
        pieces: list[tuple[Literal["=", "-", "+"], str]] = []
        for kind, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal":
                pieces.append(("=", "".join(old[old_from:old_to])))
                continue
            for sign, text in (("-", "".join(old[old_from:old_to])), ("+", "".join(new[new_from:new_to]))):
                if text:
                    pieces.append((sign, text))  # type: ignore[arg-type]
        return pieces

    def __str__(self) -> str:
        return "\n".join(one_line(line) for line in self.lines())


def diff_messages(old: object, new: object) -> list[MessageChange]:
    """Compare two lists of messages, position by position.

    Args:
        old: The messages before: mappings with ``role`` and ``content``. Anything other than a list counts as an empty
            list.
        new: The messages after.

    Returns:
        The messages whose text differs, in order.
    """
    changes = []
    nothing: Mapping[str, Any] = {}
    for index, (before, after) in enumerate(zip_longest(_messages(old), _messages(new), fillvalue=nothing)):
        was, now = text_of(before.get("content")), text_of(after.get("content"))
        if was != now:
            changes.append(MessageChange(index, str(after.get("role") or before.get("role") or ""), was, now))
    return changes


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, null or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(_part_text(part) for part in content)
    return json.dumps(content, ensure_ascii=False, default=str)


def _part_text(part: object) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    text = part.get("text")
    return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"


def _messages(messages: object) -> list[Mapping[str, Any]]:
    if not isinstance(messages, list):
        return []
    return [message if isinstance(message, Mapping) else {} for message in messages]


def _lines(text: str) -> list[str]:
    # Not splitlines: it would hide a newline that was added or lost at the end, and break lines at other characters.
    return text.split("\n") if text else []
