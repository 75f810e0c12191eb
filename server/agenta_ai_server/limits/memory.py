"""A rate limiter that counts in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agenta_ai_server.domain.gcra import Buckets
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.limiter import Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.limits.limiter import Limit


class MemoryLimiter:
    """Counts for one process and one event loop.

    Args:
        max_keys: Buckets to remember at most, at least 1; each takes about 250 bytes.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, max_keys: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: Buckets[str] = Buckets(max_keys, clock)

    @property
    def state(self) -> StoreState:
        """Always LOCAL."""
        return StoreState.LOCAL

    def __len__(self) -> int:
        """Count the buckets that are remembered."""
        return len(self._buckets)

    async def connect(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call from the bucket ``key``, if there is one."""
        return Decision.of(limit, *self._buckets.take(key, limit.interval, limit.burst))

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Return what :meth:`take` would, without taking."""
        return Decision.of(limit, *self._buckets.take(key, limit.interval, limit.burst, calls=0))
