"""What people read on a terminal."""

from __future__ import annotations

import re

# Control characters except tab and newline, other characters that end a line, and those that change the direction of
# writing.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
# Unicode's other format characters (category Cf), which can hide text from its readers. Not those that can be seen, and
# not U+200C and U+200D: without them, some scripts and emoji are misspelled.
_FORMATS = (
    r"\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
# Characters that a file in JSON or YAML holds as escapes.
CONTROLS = re.compile(f"[{_CONTROLS}]")
# Characters that a server could use to manipulate the terminal, or to hide from its user what it says.
_UNSAFE = re.compile(f"[{_CONTROLS}{_FORMATS}]")


def printable(text: str) -> str:
    """Return a text of any number of lines with unsafe characters escaped."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a text with unsafe characters and newlines escaped, so that a part of it can't pass for another line."""
    return printable(text).replace("\n", r"\n")


def printable_json(text: str) -> str:
    """Return JSON with unsafe characters escaped."""
    return _UNSAFE.sub(lambda found: re.sub("....", r"\\u\g<0>", found[0].encode("utf-16-be").hex()), text)
