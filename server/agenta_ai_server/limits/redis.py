"""Counts calls in Redis or Valkey, for all replicas together."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from agenta_ai_server.domain.redis_url import FORM
from agenta_ai_server.limits.limiter import MICROSECONDS, Decision, LimiterState, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.limits.limiter import Limit

SCRIPT = Path(__file__).with_name("gcra.lua").read_text()
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
CONNECTIONS = 16


class RedisLimiter:
    """Lets the store decide by its own clock: one script, one round trip, keys that expire when their bucket is full.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database if need be. It is kept
            out of every error and log.
        timeout: Seconds that a check may take in all, more than 0.
        prefix: What the store's keys begin with.
        clock: Seconds, for tests; without it, the store's own clock counts.

    Raises:
        ValueError: The URL is none. The sentence doesn't repeat it.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.5,
        prefix: str = "agenta-ai:limit:",
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            self._pool = _maker_of_connections(url)
            self._idle = [self._pool.make_connection() for _ in range(CONNECTIONS)]
        except (ValueError, TypeError, RedisError):
            raise ValueError(FORM) from None
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._timeout = timeout
        self._prefix = prefix
        self._clock = clock

    @property
    def state(self) -> LimiterState:
        """Always SHARED."""
        return LimiterState.SHARED

    async def connect(self) -> None:
        """Connect, and load the script.

        Raises:
            StoreFailed: The store can't be used.
        """
        await self._bounded("SCRIPT", "LOAD", SCRIPT)

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            await connection.disconnect()

    async def take(self, key: str, limit: Limit) -> Decision:
        """Take one call, if there is one.

        Raises:
            StoreFailed: The store can't be used, or not in time.
        """
        return await self._check(key, limit, calls=1)

    async def peek(self, key: str, limit: Limit) -> Decision:
        """Tell without taking.

        Raises:
            StoreFailed: As :meth:`take`.
        """
        return await self._check(key, limit, calls=0)

    async def _check(self, key: str, limit: Limit, calls: int) -> Decision:
        time = [round(self._clock() * MICROSECONDS)] if self._clock else []
        arguments: tuple[str | int, ...] = (1, self._prefix + key, limit.interval, limit.burst, calls, *time)
        allowed, wait = await self._bounded("EVALSHA", DIGEST, *arguments)
        return Decision.of(limit, bool(allowed), wait)

    async def _bounded(self, *command: str | int) -> Any:
        try:
            async with asyncio.timeout(self._timeout), self._places:
                cancelled_before = _cancellations()
                answer = await self._ask(*command)
                if _cancellations() > cancelled_before:
                    # The library loses a cancellation that comes while it connects.
                    raise asyncio.CancelledError
                return answer
        except TimeoutError as error:
            raise StoreFailed(type(error).__name__, timed_out=True) from None
        except (RedisError, OSError, EOFError) as error:
            below = error.__context__
            raise StoreFailed(type(below if isinstance(below, OSError) else error).__name__) from None

    async def _ask(self, *command: str | int) -> Any:
        connection = self._idle.pop()
        try:
            await self._pool.ensure_connection(connection)
            try:
                await connection.send_command(*command)
                return await connection.read_response()
            except NoScriptError:
                await connection.send_command("EVAL", SCRIPT, *command[2:])
                return await connection.read_response()
        finally:
            # One that was left in the middle of something has closed itself, and connects again when it is needed.
            self._idle.append(connection)


def _cancellations() -> int:
    """Return how often somebody, the time-out included, has asked for the end of the current task."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _maker_of_connections(url: str) -> Any:
    """Return a pool that isn't used as one: it loses a connection whose check is cancelled while it is put back."""
    return ConnectionPool.from_url(
        url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None
    )
