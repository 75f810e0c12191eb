from __future__ import annotations

import sys
import unicodedata

import pytest

from agenta_ai.terminal import one_line, printable

# Tab and newline; the joiners, without which emoji and some scripts are misspelled; and signs that can be seen, such as
# that of an Arabic number.
SHOWN = {"\t", "\n", "\u200c", "\u200d"} | {
    chr(sign) for sign in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)
}


def test_what_cannot_be_seen_is_escaped() -> None:
    escaped = {sign for sign in map(chr, range(sys.maxunicode + 1)) if printable(sign) != sign}
    unseen = {
        sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp")
    }
    assert unseen - escaped == SHOWN & unseen
    # Signs of later versions of Unicode than Python's.
    assert {unicodedata.category(sign) for sign in escaped - unseen} <= {"Cn"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", r"a	b\nc"),
        ("\x1b[2J\u202e\U000e0041", r"\x1b[2J\u202e\U000e0041"),
        ("👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown.replace(r"\t", "\t")
