"""Decides whether a call is retried, and when. Pure functions, without I/O."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from agenta_ai.errors import InvalidInput
from agenta_ai.service_config import RETRY_POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai.errors import CallFailed

_log = logging.getLogger(__name__)

_PUSHBACK = "grpc-retry-pushback-ms"
# Waiting calls spread over at most this many times the delay that the server sent. They don't know of each other,
# and the more often one is refused, the more of them there probably are.
_WIDEST_SPREAD = 4
_SMALLEST_DELAY = 0.05
_SHORTEST_ATTEMPT = 0.001


class Attempts:
    """The attempts of one call, which all have the same request_id and share one deadline.

    A broken connection and an unavailable server count against the retries. A rate limit doesn't: the server ran
    nothing, and says when to come back.

    Args:
        method: Name of the method, for example ``"CallTool"``.
        timeout: Seconds for all attempts together.
        retries: How often to retry after a broken connection; ``None`` for the service config's number.
        wait_for_limit: Whether the call is sent again after a rate limit, for as long as the deadline allows.
        now: Seconds of a clock that never goes back.

    Attributes:
        is_open: Whether an attempt may have run the tool, with an unknown outcome.
    """

    def __init__(
        self,
        method: str,
        timeout: float,
        *,
        retries: int | None = None,
        wait_for_limit: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = RETRY_POLICIES[method]
        self._retries = self._policy.retries if retries is None else retries
        self._waits = wait_for_limit and method in ("CallTool", "CallToolStream")
        self._now = now
        self._deadline = now() + timeout
        self._lost = 0
        self._limited = 0
        self.is_open = False

    def remaining(self) -> float:
        """Return the seconds until the deadline; 0 if there is no time for another attempt."""
        left = self._deadline - self._now()
        return left if left > _SHORTEST_ATTEMPT else 0.0

    def delay_after(self, failure: CallFailed) -> float | None:
        """Record a failed attempt, and return the seconds until the next one; ``None`` if it was the last.

        A delay that reaches the deadline is cut there: no further attempt is possible then.
        """
        delay = self._delay_after(failure)
        if delay is not None:
            _log.info("%s Sending the call again in %.1f s.", failure, delay)
        return delay

    def _delay_after(self, failure: CallFailed) -> float | None:
        self.is_open = self.is_open or failure.tool_was_run is None
        pushback = _pushback(failure)
        if pushback is not None and pushback < 0:
            return None
        if failure.reason == "RATE_LIMITED":
            return self._after_limit(failure.retry_delay) if self._waits else None
        if failure.code.name not in self._policy.codes or self._lost >= self._retries:
            return None
        delay = self._backoff() if pushback is None else pushback
        self._lost += 1
        return min(delay, self.remaining())

    def _after_limit(self, told: float | None) -> float | None:
        self._lost = 0
        self._limited += 1
        delay = max(told or 0.0, _SMALLEST_DELAY)
        remaining = self.remaining()
        if delay >= remaining:
            return None
        spread = delay * min(self._limited, _WIDEST_SPREAD)
        return delay + random.uniform(0, min(spread, (remaining - delay) / 2))  # noqa: S311

    def _backoff(self) -> float:
        policy = self._policy
        delay = min(policy.max_backoff, policy.initial_backoff * policy.multiplier ** min(self._lost, 16))
        return delay * random.uniform(0.8, 1.2)  # noqa: S311


def check_retries(retries: int | None) -> int | None:
    """Return the number of retries.

    Raises:
        InvalidInput: It is neither ``None`` nor an integer of at least 0.
    """
    if retries is None or (isinstance(retries, int) and not isinstance(retries, bool) and retries >= 0):
        return retries
    raise InvalidInput("retries: must be an integer of at least 0; 0 means that no call is retried.")


def _pushback(failure: CallFailed) -> float | None:
    """Return the server's retry delay in seconds; below 0: never; ``None`` if it doesn't say."""
    text = next((value for key, value in failure.trailers if key == _PUSHBACK), None)
    try:
        return None if text is None else int(text) / 1000
    except ValueError:  # gRPC reads it as never, too
        return -1
