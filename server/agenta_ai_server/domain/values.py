"""Plain values that every layer shares."""

from __future__ import annotations

import re
from dataclasses import field
from itertools import islice
from typing import TypeAlias

from agenta_ai_server.domain.record import record

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_VALUES = 10_000
"""How many values, nested ones included, JSON of callers, models and Agenta may have. To send so many takes 40 ms."""

# What stands before each value but the outermost: a comma, or the bracket of a list or object that isn't empty. What is
# before it is skipped, strings included. The rest of a text matches, too, and so does a string without an end: to look
# for separators in these again and again would take quadratic time.
_SEPARATOR = re.compile(r"""(?:[^",\[{]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[\s*+\]|\{\s*+\})*+([,\[{]|\Z)""", re.DOTALL)


def has_more_values(text: str, most: int = MAX_VALUES) -> bool:
    """Say whether JSON has more than ``most`` values, without parsing it. Any answer may be given for other text."""
    if text.count(",") + text.count("[") + text.count("{") < most:
        return False
    # No further than that: the rest may be megabytes.
    last = next(islice(_SEPARATOR.finditer(text), most - 1, None), None)
    return last is not None and last[1] != ""


@record
class Attempt:
    """One request to the completion service.

    Attributes:
        trace_id: Its trace in Agenta, 32 lowercase hexadecimal digits; empty if unknown.
        seconds: From sending the request to its end.
        span_id: The root span of that trace, 16 lowercase hexadecimal digits; empty if unknown.
    """

    trace_id: str
    seconds: float
    span_id: str = field(default="", compare=False)
