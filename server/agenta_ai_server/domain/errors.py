"""The ways a call can fail.

There are two classes, because callers must be able to tell two things apart: :class:`Refused` means that the tool was
not run, :class:`ToolFailed` that it ran and failed. Only ``rpc`` turns them into responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.domain.values import Attempt


class Reason(StrEnum):
    """Why a call failed, named as in the contract's ``ErrorReason``, without the prefix."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    SERVICE_DISABLED = auto()
    CREDENTIALS_INVALID = auto()
    CREDENTIALS_EXPIRED = auto()
    AUTHORITY_UNAVAILABLE = auto()
    PERMISSION_DENIED = auto()
    TOOL_NOT_FOUND = auto()
    REQUEST_MALFORMED = auto()
    REQUEST_TOO_LARGE = auto()
    REQUEST_INVALID = auto()
    ARGUMENTS_INVALID = auto()
    RATE_LIMITED = auto()
    RATE_LIMITER_UNAVAILABLE = auto()
    OVERLOADED = auto()
    UPSTREAM_CIRCUIT_OPEN = auto()
    REQUEST_ID_REUSED = auto()
    DEADLINE_TOO_SHORT = auto()
    REPLAY_STORE_UNAVAILABLE = auto()

    UPSTREAM_UNREACHABLE = auto()
    UPSTREAM_TIMEOUT = auto()
    UPSTREAM_BROKEN = auto()
    UPSTREAM_CREDENTIALS_REJECTED = auto()
    UPSTREAM_REJECTED = auto()
    UPSTREAM_RATE_LIMITED = auto()
    UPSTREAM_PROVIDER_FAILED = auto()
    UPSTREAM_FAILED = auto()
    UPSTREAM_UNAVAILABLE = auto()
    UPSTREAM_OUTPUT_INVALID = auto()
    OUTCOME_UNKNOWN = auto()
    UPSTREAM_MISCONFIGURED = auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that one field broke: its path, ``"arguments.guidelines"``, and what is wrong, in a sentence."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ExceededQuota:
    """The quota that a call would have exceeded.

    Attributes:
        subject: Whom it limits, without personal data.
        id: Names the quota.
        value: The calls that may be made at once.
        description: The quota, in a sentence.
    """

    subject: str
    id: str
    value: int
    description: str


class Refused(Exception):
    """The call was refused, and the tool was not run.

    Args:
        reason: Why.
        message: What the caller reads: what is wrong and the way out. Never holds a secret or an upstream's text.
        violations: The fields at fault, if the request is.
        retry_delay: Seconds after which a new attempt makes sense; ``None`` if unknown.
        resource: Name of the thing that wasn't found, if that is why.
        quota: The quota that was used up, if that is why.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_delay: float | None = None,
        resource: str = "",
        quota: ExceededQuota | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_delay = retry_delay
        self.resource = resource
        self.quota = quota

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ``copy`` rebuild it, which would pass only the message by default. Subclasses become a ``Refused``."""
        return Refused, (self.reason, self.message), self.__dict__


def invalid_fields(reason: Reason, *violations: Violation) -> Refused:
    """Return the refusal of a request whose fields break rules. Its message is the first of the ``violations``."""
    first = violations[0]
    return Refused(reason, f"{first.field}: {first.description}", violations=violations)


class DeadlinePassed(Exception):
    """The call took longer than it may. The tool may have run, and the call may have been billed."""


class ToolFailed(Exception):
    """The tool ran and failed.

    Args:
        reason: Why.
        message: What the caller reads: what happened and the way out. Never holds a secret or an upstream's text.
        retryable: Whether the same call may succeed later, and nothing was billed.
        retry_delay: Seconds to wait before that; ``None`` if unknown.
        violations: The rules that the tool's answer broke, if that is why.
        attempts: The requests that were sent to the completion service.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retryable: bool = False,
        retry_delay: float | None = None,
        violations: Sequence[Violation] = (),
        attempts: Sequence[Attempt] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.retry_delay = retry_delay
        self.violations = tuple(violations)
        self.attempts = tuple(attempts)


class UpstreamFailed(ToolFailed):
    """The completion service gave no completion.

    Args:
        reason: Why.
        message: As for :class:`ToolFailed`.
        attempt: The request that failed.
        may_have_run: Whether the request may have reached the completion service, and so may have been billed.
        retryable: As for :class:`ToolFailed`.
        retry_delay: As for :class:`ToolFailed`.
        transient: Whether the same request may succeed within seconds.
        healthy: Whether the completion service itself works, as far as this tells; ``None`` if it doesn't tell.
        explanation: What the completion service itself said, for operators only, without secrets and prompts.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        attempt: Attempt,
        may_have_run: bool,
        retryable: bool = False,
        retry_delay: float | None = None,
        transient: bool = False,
        healthy: bool | None = True,
        explanation: str = "",
    ) -> None:
        super().__init__(reason, message, retryable=retryable, retry_delay=retry_delay, attempts=(attempt,))
        self.may_have_run = may_have_run
        self.transient = transient
        self.healthy = healthy
        self.explanation = explanation


def forget_frames(error: BaseException | None) -> None:
    """Drop the frames that an error and its causes lead to: in a cycle, they stay until the next garbage collection."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
