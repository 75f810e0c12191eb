"""What people read on a terminal."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """The text without control characters, by which a server could play tricks with the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)
