"""Counts calls in this process."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING

from agenta_ai_server.limits.limiter import MICROSECONDS, Decision, LimiterState

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.limits.limiter import Limit

# Each call that is written down can make one entry old. Looking at two for each keeps up with them.
LOOKS = 2


class MemoryLimiter:
    """Keeps for each bucket the moment when it will be full (GCRA's theoretical arrival time).

    A full bucket says nothing, so it is forgotten by the calls that come after. When there are too many others, the one
    that is full soonest is forgotten early: it has the least to tell, so a flood of new callers doesn't free one that
    has used up its own. For use by one event loop.

    Args:
        max_keys: Buckets to remember at most, at least 1; each takes about 250 bytes.
        clock: Seconds that only go forward.
    """

    def __init__(self, max_keys: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._full_at: dict[str, int] = {}
        # A heap with one entry for each bucket: when it would have been full without the calls since it was entered.
        self._soonest: list[tuple[int, str]] = []

    @property
    def state(self) -> LimiterState:
        """Always LOCAL."""
        return LimiterState.LOCAL

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._full_at)

    async def connect(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call, if there is one."""
        return self._check(key, limit, calls=1)

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Tell without taking."""
        return self._check(key, limit, calls=0)

    def _check(self, key: str, limit: Limit, calls: int) -> Decision:
        """Do what gcra.lua does."""
        now = round(self._clock() * MICROSECONDS)
        full_at = self._full_at.get(key, now)
        wait = min(max(full_at - now, 0), limit.burst * limit.interval)
        allowed = wait <= (limit.burst - 1) * limit.interval
        if allowed:
            wait += calls * limit.interval
        if wait and now + wait != full_at:
            self._remember(key, now + wait, now)
        return Decision.of(limit, allowed, wait)

    def _remember(self, key: str, full_at: int, now: int) -> None:
        for _ in range(LOOKS):
            if self._soonest and self._soonest[0][0] <= now:
                self._forget_first()
        if key not in self._full_at:
            while len(self._full_at) >= self._max_keys:
                self._forget_first()
            heapq.heappush(self._soonest, (full_at, key))
        self._full_at[key] = full_at

    def _forget_first(self) -> None:
        """Forget the bucket that is full soonest; if its entry is old, bring that up to date instead."""
        entered, key = self._soonest[0]
        if self._full_at[key] > entered:
            heapq.heapreplace(self._soonest, (self._full_at[key], key))
        else:
            heapq.heappop(self._soonest)
            del self._full_at[key]
