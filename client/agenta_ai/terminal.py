"""What people read on a terminal."""

from __future__ import annotations

import re

# Characters that a server could use to manipulate the terminal: control characters except tab and newline, other
# characters that end a line, and those that change the direction of writing.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return the text with its controls escaped."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
