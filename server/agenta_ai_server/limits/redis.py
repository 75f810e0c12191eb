"""A rate limiter that counts in Redis or Valkey, for all replicas together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agenta_ai_server.domain.gcra import MICROSECONDS
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.limiter import Decision, Limit, StoreFailed
from agenta_ai_server.redis.client import RedisFailed, Script, unexpected_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.redis.client import RedisClient

GCRA = Script(Path(__file__).with_name("gcra.lua").read_text())
# The probe takes a call, because a store may be readable but not writable.
PROBE_KEY = "probe"
PROBE_LIMIT = Limit(burst=1_000, per_minute=60_000)


class RedisLimiter:
    """Decides by Redis's clock: one script, one round trip, and keys that expire when their bucket is full.

    Args:
        client: Where to count. It stays open when this is closed.
        prefix: What the keys begin with.
        clock: Seconds, for tests. Without it, Redis's own clock counts.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "agenta-ai:limit:",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock

    @property
    def state(self) -> StoreState:
        """Always SHARED."""
        return StoreState.SHARED

    async def connect(self) -> None:
        """Take a call from a bucket of no caller.

        Raises:
            StoreFailed: Redis can't be used.
        """
        await self.take(PROBE_KEY, PROBE_LIMIT)

    async def aclose(self) -> None:
        """Do nothing: the client belongs to others too."""

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call from the bucket ``key``, if there is one.

        Raises:
            StoreFailed: Redis can't be used, or doesn't answer in time.
        """
        return await self._check(key, limit, calls=1)

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Return what :meth:`take` would, without taking.

        Raises:
            StoreFailed: As :meth:`take`.
        """
        return await self._check(key, limit, calls=0)

    async def _check(self, key: str, limit: Limit, calls: int) -> Decision:
        time = [round(self._clock() * MICROSECONDS)] if self._clock else []
        arguments = (limit.interval, limit.burst, calls, *time)
        try:
            match await self._client.run(GCRA, [self._prefix + key], *arguments):
                case [int(allowed), int(wait)]:
                    return Decision.of(limit, bool(allowed), wait)
                case _:
                    raise unexpected_answer()
        except RedisFailed as error:
            raise StoreFailed(error.why, timed_out=error.timed_out) from None
