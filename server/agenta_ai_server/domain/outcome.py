"""The outcome of a tool call, as plain data that any transport can send and any store can keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.errors import Reason, ToolFailed, Violation
    from agenta_ai_server.domain.values import Attempt, Json


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """Why a tool failed after it had been run.

    Attributes:
        reason: The class of failure.
        retryable: Whether the same call may succeed later; nothing was billed.
        retry_delay: Seconds to wait before that; ``None`` if unknown.
        violations: The rules that the tool's answer broke, if that is why.
    """

    reason: Reason
    retryable: bool = False
    retry_delay: float | None = None
    violations: tuple[Violation, ...] = ()


@record
class ToolOutcome:
    """A tool's success or failure.

    Attributes:
        text: The result for people; of a failure, one sentence about what went wrong.
        structured: The result for programs, as the tool's output schema has it; ``None`` for a failure.
        failure: Why the tool failed; ``None`` for a success.
        attempts: The requests that were sent to the completion service, in their order.
        repaired: Whether the first answer broke a rule and this one comes from asking again.
        replayed: Whether this is the stored outcome of an earlier call.
        warnings: Sentences about what the caller should know although the call succeeded.
    """

    text: str
    structured: Json = None
    failure: ToolFailure | None = None
    attempts: tuple[Attempt, ...] = ()
    repaired: bool = False
    replayed: bool = False
    warnings: tuple[str, ...] = ()
    _written: dict[Write, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def written(self, write: Write) -> bytes:
        """Return ``write(self)``, called once for all callers that share this outcome: it takes up to 40 ms."""
        if write not in self._written:
            self._written[write] = write(self)
        return self._written[write]

    @classmethod
    def of_failure(cls, failed: ToolFailed) -> ToolOutcome:
        """Return the outcome of a tool that raised ``failed``."""
        failure = ToolFailure(failed.reason, failed.retryable, failed.retry_delay, failed.violations)
        return cls(failed.message, failure=failure, attempts=failed.attempts)


Write: TypeAlias = "Callable[[ToolOutcome], bytes]"
"""Serializes an outcome for a caller."""
