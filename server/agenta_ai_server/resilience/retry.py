"""Retries requests if that can't be billed twice."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Refused, UpstreamFailed
from agenta_ai_server.domain.progress import Stage
from agenta_ai_server.resilience.window import SlidingCounter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agenta_ai_server.agenta.completion_service import AnyPrompt, Completion, CompletionService
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt, Json

_BASE_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0
_WINDOW_SECONDS = 10.0


class RetryBudget:
    """Limits retries to a small share of the calls, so that they don't add to an overload.

    Args:
        share: Retries for each call of the last 10 seconds, at least 0.
        per_second: Retries in a second beyond that, so that even a quiet service can retry; at least 0.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self, *, share: float = 0.2, per_second: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._reserve = per_second * _WINDOW_SECONDS
        self._calls = SlidingCounter(_WINDOW_SECONDS, clock)
        self._retries = SlidingCounter(_WINDOW_SECONDS, clock)

    def count_call(self) -> None:
        """Count a call, whatever its outcome."""
        self._calls.add()

    def take(self) -> bool:
        """Take one retry from the budget, and return whether there was one."""
        if self._retries.count + 1 > self._share * self._calls.count + self._reserve:
            return False
        self._retries.add()
        return True


class RetryingCompletions:
    """A :class:`~agenta_ai_server.agenta.completion_service.CompletionService` that retries unbilled failures.

    These are failures for which a few seconds may help: no connection, HTTP 429, and a 503 without a trace in Agenta;
    with ``unsafe``, also some that may have been billed. The pause grows exponentially from 0.2 to 5 seconds; each
    caller waits a random part of it, so that callers don't come back together; a ``Retry-After`` comes on top of it
    (RFC 9110, section 10.2.3), so no retry is earlier. A retry that can't end in time isn't made: the failure is
    raised at once, with its delay.

    Args:
        inner: The service; behind a breaker, so that each request counts.
        retries: How many times a call is sent again at most, at least 0.
        max_seconds: No retry ends later than this many seconds after the call began, whatever its deadline.
        min_remaining_seconds: A call with less time left is refused.
        unsafe: Whether to send again also after a time-out, a broken connection, or a proxy's 502 or 504, which may be
            billed twice.
        budget: Limits all retries together.
        clock: What deadlines are on; ``None`` for the running event loop's clock.
        sleep: Waits for a number of seconds.
        jitter: Returns a random number from 0 to 1.
    """

    def __init__(
        self,
        inner: CompletionService,
        *,
        retries: int = 2,
        max_seconds: float = 60.0,
        min_remaining_seconds: float = 1.25,
        unsafe: bool = False,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._retries = retries
        self._max_seconds = max_seconds
        self._min_remaining_seconds = min_remaining_seconds
        self._unsafe = unsafe
        self._budget = budget or RetryBudget()
        self._clock = clock or _loop_time
        self._sleep = sleep
        self._jitter = jitter

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Run one prompt, as the service itself.

        Raises:
            Refused: As the service, before anything was sent. What refuses a retry doesn't.
            UpstreamFailed: As the service, with all requests that were sent. After one that may have been billed, it
                is the last such, even if others followed.
        """
        until = min(self._clock() + self._max_seconds, call.deadline)
        try:
            completion = await self._inner.complete(prompt, inputs, call)
        except UpstreamFailed as failure:
            failures = [failure]
        else:
            self._budget.count_call()
            return completion
        self._budget.count_call()
        try:
            return await self._retry(prompt, inputs, until, call, failures)
        finally:
            # A failure and its frames refer to each other, and would keep the prompt in memory until a collection.
            failures.clear()

    async def _retry(
        self,
        prompt: AnyPrompt,
        inputs: Mapping[str, Json],
        until: float,
        call: ToolCall,
        failures: list[UpstreamFailed],
    ) -> Completion:
        # Read each time, because callers join and leave.
        while (delay := self._take_retry(failures, min(until, call.waiting.deadline))) is not None:
            when = f"in {delay:.0f} s" if delay >= 1 else "in a moment"
            call.report(Stage.WAITING_FOR_RETRY, f"Agenta can't answer now. Asking again {when}.", retry_delay=delay)
            await self._sleep(delay)
            call.report(Stage.ASKING, "Asking Agenta again.")
            try:
                again = replace(call, deadline=until, resends=len(failures))
                completion = await self._inner.complete(prompt, inputs, again)
            except UpstreamFailed as failure:
                failures.append(failure)
            except Refused as refused:
                raise _combined(failures, refused.retry_delay) from None
            else:
                return replace(completion, earlier=_attempts(failures))
        raise _combined(failures)

    def _take_retry(self, failures: list[UpstreamFailed], until: float) -> float | None:
        """Take a retry from the budget, and return the seconds until it; ``None`` if there is none."""
        last = failures[-1]
        may_send = last.transient and (self._unsafe or not last.may_have_run)
        if len(failures) > self._retries or not may_send:
            return None
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        backoff = self._jitter() * min(_BASE_SECONDS * 2.0 ** (len(failures) - 1), _MAX_BACKOFF_SECONDS)
        delay = (last.retry_delay or 0.0) + backoff
        if self._clock() + delay + self._min_remaining_seconds > until or not self._budget.take():
            return None
        return delay


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _attempts(failures: list[UpstreamFailed]) -> tuple[Attempt, ...]:
    return tuple(attempt for failure in failures for attempt in failure.attempts)


def _combined(failures: list[UpstreamFailed], retry_delay: float | None = None) -> UpstreamFailed:
    """Return the failure that the caller gets, for all of them.

    Args:
        failures: In their order.
        retry_delay: Seconds that what refused a further request asks to wait, if it does.
    """
    # A later request that wasn't billed doesn't change that an earlier one may have been.
    combined = next((failure for failure in reversed(failures) if failure.may_have_run), failures[-1])
    combined.attempts = _attempts(failures)
    if combined.retryable and retry_delay is not None:
        combined.retry_delay = max(combined.retry_delay or 0.0, retry_delay)
    return combined
