"""Plain values that every layer shares."""

from __future__ import annotations

import re
from dataclasses import field
from typing import TypeAlias

from agenta_ai_server.domain.record import record

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_VALUES = 10_000
"""How many values, nested ones included, JSON of callers, models and Agenta may have. To send so many takes 40 ms."""

# A string without an end goes to the end of the text, or else looking for strings in it would take quadratic time.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_EMPTY = re.compile(r"\[\s*+\]|\{\s*+\}")


def has_more_values(text: str, most: int = MAX_VALUES) -> bool:
    """Say whether JSON has more than ``most`` values, without parsing it. Any answer may be given for other text."""
    return _separators(text) >= most and _separators(_EMPTY.sub("0", _STRING.sub("0", text))) >= most


def _separators(text: str) -> int:
    """Count what stands before each value but the outermost: a comma, or the bracket of a list or object."""
    return text.count(",") + text.count("[") + text.count("{")


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
