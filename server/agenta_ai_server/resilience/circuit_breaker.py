"""A circuit breaker for the completion service."""

from __future__ import annotations

import logging
import math
import random
import time
from enum import StrEnum, auto
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.domain.errors import Reason, Refused, UpstreamFailed
from agenta_ai_server.resilience.window import CountsByKey, Expected

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import NoReturn

    from agenta_ai_server.agenta.completion_service import AnyPrompt, Completion, CompletionService
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

_WINDOW_SECONDS = 10.0
_MIN_CALLS = 20
_FAILING_SHARE = 0.5
_MAX_OPEN_SECONDS = 30.0
# Once so many callers have probed in vain, no call is a probe before the period is over.
_MAX_PROBERS = 20

log = logging.getLogger(__name__)

# Failures that have nothing to do with the prompt.
OF_AGENTA_ALONE = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_UNAVAILABLE})


class State(StrEnum):
    """The state of the breaker: all calls pass, none, or one probe at a time."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class CircuitBreaker:
    """Opens when half of at least 20 calls within 10 seconds failed.

    One caller can't open it for the others: if they call too, half of their calls must have failed as well. Whoever has
    called within 10 seconds calls too, whatever came of it, and whoever was refused may take the delay in addition. A
    caller that is alone can open it. A ``Retry-After`` opens it at once.

    Once its time is over, the next call is let through as a probe. Its success closes the breaker, its failure opens it
    again for twice as long, up to 30 seconds. The next probe follows when one has ended without a verdict, or has taken
    as long as the breaker is open at first. After a failed probe, one call of each of the first 20 other callers may
    probe before the period is over, so that a caller whose prompts fail can't keep the breaker open for the others.
    Such a probe doesn't change the period.

    Calls that began before the last change of state don't count, because they reflect an earlier state of the service.

    Belongs to one thread.

    Args:
        open_seconds: How long it stays open at first, more than 0, at most 30.
        on_change: Called with the new state at each change. Must not raise.
        clock: Monotonic clock, in seconds.
        jitter: Returns a random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        open_seconds: float = 5.0,
        on_change: Callable[[State], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._by_caller: CountsByKey[Hashable] = CountsByKey(_WINDOW_SECONDS, clock)
        # Unlike the counts, it outlasts changes of state.
        self._expected: Expected[Hashable] = Expected(clock)
        self._state = State.CLOSED
        self._failed_probes = 0
        # Who has probed in vain.
        self._failed_probers: set[Hashable] = set()
        # When the open period, or the wait for a probe, ends. Without meaning while the breaker is closed.
        self._until = 0.0
        # When the period ends that a probe interrupts.
        self._interrupted_until = 0.0
        # Grows with each change. A call of an earlier one doesn't count any more.
        self._generation = 0

    @property
    def state(self) -> State:
        """The state for the next call: an open breaker is half-open once its period is over."""
        if self._state is State.OPEN and self._clock() >= self._until:
            return State.HALF_OPEN
        return self._state

    def enter(self, caller: Hashable = "") -> int:
        """Admit a call, and return the generation to pass to :meth:`leave` at its end.

        Args:
            caller: Whose call it is.

        Raises:
            Refused: UPSTREAM_CIRCUIT_OPEN, with a delay after which a call may be let through.
        """
        if self._state is not State.CLOSED:
            if (now := self._clock()) < self._until and not self._may_probe_early(caller):
                self._refuse(caller, self._until - now)
            self._interrupted_until = self._until
            # One at a time; but a probe may be as slow as a model, and mustn't keep all others waiting for it alone.
            self._until = now + self._open_seconds
            if self._state is State.OPEN:
                self._change(State.HALF_OPEN)
        self._expected.add(caller, _WINDOW_SECONDS)
        return self._generation

    def leave(
        self, generation: int, *, healthy: bool | None, retry_after: float | None = None, caller: Hashable = ""
    ) -> None:
        """Count a call's end.

        Args:
            generation: What :meth:`enter` returned.
            healthy: Whether the completion service works, as far as this call can tell; ``None`` if it can't.
            retry_after: Seconds for which the service asked not to be called, if it did. An unhealthy one is taken at
                its word, for 30 seconds at most.
            caller: Whose call it was.
        """
        self._expected.add(caller, _WINDOW_SECONDS)
        if generation != self._generation:
            return
        asked = 0.0 if healthy else min(retry_after or 0.0, _MAX_OPEN_SECONDS)
        if self._state is State.HALF_OPEN:
            self._probed(caller, healthy, asked)
        elif healthy is not None:
            self._by_caller.add(caller, failed=not healthy)
            if asked or self._is_failing(caller):
                self._open(asked or self._open_seconds)

    def _may_probe_early(self, caller: Hashable) -> bool:
        failed = self._failed_probers
        return self._state is State.OPEN and 0 < len(failed) < _MAX_PROBERS and caller not in failed

    def _probed(self, caller: Hashable, healthy: bool | None, asked: float) -> None:
        left = self._interrupted_until - self._clock()
        if healthy:
            self._failed_probes = 0
            self._failed_probers.clear()
            self._by_caller.clear()
            self._change(State.CLOSED)
        elif left > 0 and not asked:
            # A probe before its time doesn't change the period.
            self._failed_probers.add(caller)
            self._open(left)
        elif healthy is None:
            self._until = self._clock()
        else:
            self._failed_probes += 1
            if asked:
                self._failed_probers.clear()  # what the service asks for is for all callers
            else:
                self._failed_probers.add(caller)
            # A float would overflow after a night without Agenta.
            longer = self._open_seconds * 2 ** min(self._failed_probes, 10)
            self._open(max(asked, min(longer, _MAX_OPEN_SECONDS)))

    def _is_failing(self, caller: Hashable) -> bool:
        total = self._by_caller.total
        if total.events < _MIN_CALLS or total.failures < _FAILING_SHARE * total.events:
            return False
        # Without the caller with most failures, whose prompts alone may be what fails.
        worst = self._by_caller.worst()
        others = total.events - worst.events
        if not others:
            return not self._expected.has_other_than(caller)
        return total.failures - worst.failures >= _FAILING_SHARE * others

    def _open(self, seconds: float) -> None:
        self._until = self._clock() + seconds
        self._change(State.OPEN)

    def _change(self, state: State) -> None:
        self._generation += 1
        if state is self._state:
            return
        self._state = state
        if state is State.OPEN:
            seconds = self._until - self._clock()
            log.warning("the completion service is failing; requests to it are paused for %.1f seconds", seconds)
        elif state is State.HALF_OPEN:
            log.info("one call tests whether the completion service works again")
        else:
            log.info("the completion service works again")
        self._on_change(state)

    def _refuse(self, caller: Hashable, seconds: float) -> NoReturn:
        if self._state is State.HALF_OPEN:
            # The probe will probably end before it is given up.
            seconds = min(seconds, self._open_seconds)
        delay = seconds + self._jitter() * self._open_seconds
        self._expected.add(caller, delay + _WINDOW_SECONDS)
        raise Refused(
            Reason.UPSTREAM_CIRCUIT_OPEN,
            "The completion service keeps failing, so requests to it are paused. Nothing was sent: try again in "
            f"{math.ceil(delay)} seconds.",
            retry_delay=delay,
        )


class CircuitBreakingCompletions:
    """A :class:`~agenta_ai_server.agenta.completion_service.CompletionService` behind a breaker.

    Args:
        inner: The service.
        breaker: Decides which calls are admitted, and counts their outcomes.
    """

    def __init__(self, inner: CompletionService, breaker: CircuitBreaker) -> None:
        self._inner = inner
        self._breaker = breaker

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Run one prompt, as the service itself.

        Raises:
            Refused: As the service; UPSTREAM_CIRCUIT_OPEN.
            UpstreamFailed: As the service.
        """
        caller = call.caller.key
        generation = self._breaker.enter(caller)
        healthy: bool | None = None
        retry_after: float | None = None
        try:
            completion = await self._inner.complete(prompt, inputs, call)
            healthy = True
        except UpstreamFailed as failure:
            # Otherwise the prompt or its model may be the reason, and both are the caller's.
            says_something = isinstance(prompt, DeployedPrompt) or failure.reason in OF_AGENTA_ALONE
            healthy = failure.healthy if says_something else None
            if failure.reason is Reason.UPSTREAM_UNAVAILABLE:
                retry_after = failure.retry_delay
            raise
        finally:
            # A cancelled call must leave too, because it may be the probe.
            self._breaker.leave(generation, healthy=healthy, retry_after=retry_after, caller=caller)
        return completion
