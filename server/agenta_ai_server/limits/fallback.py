"""A rate limiter that falls back to a local one while its shared store fails."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Literal

from agenta_ai_server.domain.single_flight import SingleFlight
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.limiter import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.limits.limiter import Decision, Limit, RateLimiter

TIMEOUTS = 2

log = logging.getLogger(__name__)


class FallbackLimiter:
    """Uses the shared limiter, and falls back to a local one after an error, or after two time-outs in a row.

    Calls that were under way when one timed out don't count as the next, because one silence may be the reason for all.

    The local limiter counts all calls that the shared one admits here, so no caller finds a full bucket in the fallback
    whose calls have used it up.

    In the fallback, calls don't wait for the shared limiter. They start a probe now and then, and the first probe that
    succeeds ends the fallback.

    Args:
        shared: Counts for all replicas.
        local: Counts for this process.
        on_failure: ``"local"``: the local limiter decides while the shared one fails. ``"refuse"``: calls are refused
            meanwhile (fail closed).
        every: Seconds between probes, more than 0; shortened at random by up to a half.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        shared: RateLimiter,
        local: RateLimiter,
        *,
        on_failure: Literal["local", "refuse"] = "local",
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._local = local
        self._refuse = on_failure == "refuse"
        self._every = every
        self._clock = clock
        self._state = StoreState.SHARED
        self._timeouts = 0
        # How many calls of the shared limiter had begun: so far, and when the last time-out was counted.
        self._begun = self._begun_at_timeout = 0
        self._probe_at = 0.0
        self._probes: SingleFlight[str, None] = SingleFlight()

    @property
    def state(self) -> StoreState:
        """SHARED or FALLBACK."""
        return self._state

    async def connect(self) -> None:
        """Connect, and fall back if that fails: a store that is down doesn't keep the service from starting."""
        try:
            await self._shared.connect()
        except StoreFailed as failure:
            self._fall_back(failure)

    async def aclose(self) -> None:
        """Stop probing, and close both limiters."""
        await self._probes.aclose()
        await self._shared.aclose()
        await self._local.aclose()

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call from the bucket ``key``, if there is one.

        Raises:
            StoreFailed: The shared limiter fails, and ``on_failure`` is ``"refuse"``.
        """
        return await self._decide(self._shared.take, self._local.take, key, limit)

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Return what :meth:`take` would, without taking.

        Raises:
            StoreFailed: As :meth:`take`.
        """
        return await self._decide(self._shared.peek, self._local.peek, key, limit)

    async def _decide(
        self,
        shared: Callable[[str, Limit], Awaitable[Decision]],
        local: Callable[[str, Limit], Awaitable[Decision]],
        key: str,
        limit: Limit,
    ) -> Decision:
        if self._state is StoreState.SHARED:
            self._begun = number = self._begun + 1
            try:
                decision = await shared(key, limit)
            except StoreFailed as failure:
                self._count_failure(failure, number)
            else:
                self._timeouts = 0
                if decision.allowed:
                    # Otherwise a store that fails now and then would give each caller two buckets.
                    await local(key, limit)
                return decision
        else:
            self._start_probe()
        if self._refuse:
            raise StoreFailed("down", retry_delay=self._every)
        return await local(key, limit)

    def _count_failure(self, failure: StoreFailed, number: int) -> None:
        if failure.timed_out and number > self._begun_at_timeout:
            self._timeouts += 1
            self._begun_at_timeout = self._begun
        # Of many concurrent calls, only the first changes the state.
        if self._state is StoreState.SHARED and (not failure.timed_out or self._timeouts >= TIMEOUTS):
            self._fall_back(failure)

    def _fall_back(self, failure: StoreFailed) -> None:
        then = "calls are refused" if self._refuse else "each process counts on its own"
        log.warning("the rate limiter's store is failing (%s): %s until it works again", failure.why, then)
        self._plan_probe()
        self._state = StoreState.FALLBACK

    def _plan_probe(self) -> None:
        self._probe_at = self._clock() + self._every * random.uniform(0.5, 1)  # noqa: S311  # spreads the probes of replicas

    def _start_probe(self) -> None:
        if self._clock() >= self._probe_at:
            self._probes.start("", self._try_shared)

    async def _try_shared(self) -> None:
        try:
            await self._shared.connect()
        except StoreFailed:
            self._plan_probe()
        else:
            log.info("the rate limiter's store works again: replicas share the limits")
            self._timeouts = 0
            self._state = StoreState.SHARED
