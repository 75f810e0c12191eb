"""The differences between two lists of chat messages, as text for people."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agenta_ai.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

# A sign, as in a diff, and a part of a text.
Piece = tuple[Literal["=", "-", "+"], str]

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
# SequenceMatcher compares each word with each equal one. In one piece, longer texts would take minutes.
_MOST_PAIRS = 1_000_000
# So many words in a row, blanks included, are rarely equal by chance.
_ANCHOR_WORDS = 8


class _Run(NamedTuple):
    """Words that both texts have: where they begin in each, and how many they are."""

    old: int
    new: int
    size: int


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

    def words(self) -> list[Piece]:
        """Return the text in pieces, word by word: ``=`` for unchanged, ``-`` for removed, ``+`` for added pieces."""
        old, new = _WORDS.findall(self.old), _WORDS.findall(self.new)
        pieces: list[Piece] = []
        old_end = new_end = 0
        for run in _equal_runs(old, new):
            _add(pieces, "-", old[old_end : run.old])
            _add(pieces, "+", new[new_end : run.new])
            _add(pieces, "=", old[run.old : run.old + run.size])
            old_end, new_end = run.old + run.size, run.new + run.size
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


def _add(pieces: list[Piece], sign: Literal["=", "-", "+"], words: list[str]) -> None:
    """Append words to the pieces, or to the last of them if it has the same sign."""
    if pieces and words and pieces[-1][0] == sign:
        words = [pieces.pop()[1], *words]
    if words:
        pieces.append((sign, "".join(words)))


def _equal_runs(old: list[str], new: list[str]) -> Iterator[_Run]:
    """Yield the words that both texts have, in order; the last run is empty, at their ends.

    Long texts are divided where they are unmistakably equal.
    """
    anchors = _anchors(old, new) if len(old) * len(new) > _MOST_PAIRS else ()
    old_end = new_end = 0
    for anchor in [*anchors, _Run(len(old), len(new), 0)]:
        between = old[old_end : anchor.old], new[new_end : anchor.new]
        if len(between[0]) * len(between[1]) <= _MOST_PAIRS:
            for run in SequenceMatcher(None, *between, autojunk=False).get_matching_blocks():
                yield _Run(old_end + run.a, new_end + run.b, run.size)
        yield anchor
        old_end, new_end = anchor.old + anchor.size, anchor.new + anchor.size


def _anchors(old: list[str], new: list[str]) -> Iterator[_Run]:
    """Yield runs of words that occur once in each text, in order and without overlaps."""
    in_old, in_new = _unique_runs(old), _unique_runs(new)
    old_runs, new_runs = ([run for run in one if run in other] for one, other in ((in_old, in_new), (in_new, in_old)))
    old_end = new_end = 0
    for block in SequenceMatcher(None, old_runs, new_runs, autojunk=False).get_matching_blocks():
        for run in old_runs[block.a : block.a + block.size]:
            if in_old[run] >= old_end and in_new[run] >= new_end:
                yield _Run(in_old[run], in_new[run], _ANCHOR_WORDS)
                old_end, new_end = in_old[run] + _ANCHOR_WORDS, in_new[run] + _ANCHOR_WORDS


def _unique_runs(words: list[str]) -> dict[tuple[str, ...], int]:
    """Return where each run of words begins that occurs only once."""
    starts = [tuple(words[start : start + _ANCHOR_WORDS]) for start in range(len(words) - _ANCHOR_WORDS + 1)]
    counts = Counter(starts)
    return {run: start for start, run in enumerate(starts) if counts[run] == 1}
