"""Plain values that every layer shares."""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from agenta_ai_server.domain.record import record

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


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
