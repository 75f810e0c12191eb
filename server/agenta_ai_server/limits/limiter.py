"""The interface of a rate limiter. All implementations give the same answers to the same history."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.gcra import MICROSECONDS
from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from agenta_ai_server.domain.store_state import StoreState

MAX_BURST = 100_000
MIN_PER_MINUTE, MAX_PER_MINUTE = 0.01, 60_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket that holds ``burst`` calls and refills steadily.

    Attributes:
        burst: Calls that may be made at once, from 1 to 100,000.
        per_minute: Calls that come back in a minute, from 0.01 to 60,000.
        interval: Microseconds in which one call comes back, rounded up: never more than ``per_minute`` do.

    Raises:
        ValueError: One of the two is out of bounds.
    """

    burst: int
    per_minute: float
    interval: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.burst <= MAX_BURST:
            raise ValueError(f"burst must be a whole number from 1 to {MAX_BURST:,}")
        if not MIN_PER_MINUTE <= self.per_minute <= MAX_PER_MINUTE:
            raise ValueError(f"per_minute must be a number from {MIN_PER_MINUTE} to {MAX_PER_MINUTE:,}")
        object.__setattr__(self, "interval", math.ceil(60 * MICROSECONDS / self.per_minute))

    @property
    def window(self) -> float:
        """Seconds in which an empty bucket becomes full."""
        return self.burst * self.interval / MICROSECONDS


@record
class Decision:
    """The answer of a rate limiter.

    Attributes:
        allowed: Whether the call may be made.
        remaining: Whole calls that may be made now, after this one.
        delay: Seconds until a call may be made; 0 if one may be made now.
        reset: Seconds until the bucket is full; 0 if it is.
    """

    allowed: bool
    remaining: int
    delay: float
    reset: float

    @classmethod
    def of(cls, limit: Limit, allowed: bool, wait: int) -> Decision:
        """Return the decision for a bucket that will be full in ``wait`` microseconds."""
        missing = -(-wait // limit.interval)
        return cls(
            allowed,
            remaining=limit.burst - missing,
            delay=max(0, wait - (limit.burst - 1) * limit.interval) / MICROSECONDS,
            reset=wait / MICROSECONDS,
        )


class RateLimiter(Protocol):
    """Counts calls by key, exactly: a burst of N admits N, and a denied call costs nothing.

    If a key's limit changes, the bucket keeps the time that it needs to be full, but never more than the new limit's.
    """

    @property
    def state(self) -> StoreState:
        """Where the counts are kept now."""

    async def connect(self) -> None:
        """Get ready, before the first check.

        Raises:
            StoreFailed: The store can't be used.
        """

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call from the bucket ``key``, if there is one.

        Raises:
            StoreFailed: The store can't be used.
        """

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Return what :meth:`take` would, without taking; ``allowed`` says whether a call could be taken.

        Raises:
            StoreFailed: As :meth:`take`.
        """

    async def aclose(self) -> None:
        """Close what it has opened, after the last check."""


class StoreFailed(Refused):
    """The limiter's store failed or didn't respond in time.

    Args:
        why: The class of the error, never its text: that may hold an address.
        timed_out: Whether it was only slow.
        retry_delay: Seconds after which a retry makes sense.
    """

    def __init__(self, why: str, *, timed_out: bool = False, retry_delay: float = 1.0) -> None:
        super().__init__(
            Reason.RATE_LIMITER_UNAVAILABLE,
            "The limiter is unavailable and configured to fail closed. Retry later.",
            retry_delay=retry_delay,
        )
        self.why = why
        self.timed_out = timed_out
