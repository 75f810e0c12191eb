"""What a tool answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's success.

    Attributes:
        text: The result for people.
        structured: The result for programs, as the tool's output schema has it.
        attempts: The requests that were sent to the completion service, in their order.
        repaired: Whether the first answer broke a rule and this one comes from asking once more.
        warnings: Sentences about what the caller should know although the call succeeded.
    """

    text: str
    structured: Json
    attempts: tuple[Attempt, ...] = ()
    repaired: bool = False
    warnings: tuple[str, ...] = ()
