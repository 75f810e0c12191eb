"""Types that results and errors share."""

from __future__ import annotations

from dataclasses import dataclass

# Pairs of a key in lower case and a value: bytes if the key ends in ``-bin``, else text.
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that one field broke: its path, ``"arguments.guidelines"``, and what is wrong, in a sentence."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to the completion service: its trace in Agenta, empty if unknown, and the seconds it took."""

    trace_id: str = ""
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class CallMeta:
    """How a result was produced.

    Attributes:
        trace_id: Id of the trace in Agenta that has the model's answer. Empty if unknown.
        attempts: The requests that were sent to the completion service, in order.
        repaired: Whether the first answer broke a rule, and the result is from a later one.
        replayed: Whether this is the stored result of an earlier call with the same request_id.
        warnings: What a caller should know although the call succeeded, each in a sentence.
    """

    trace_id: str = ""
    attempts: tuple[Attempt, ...] = ()
    repaired: bool = False
    replayed: bool = False
    warnings: tuple[str, ...] = ()
