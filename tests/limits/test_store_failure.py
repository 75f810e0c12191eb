"""A real Redis is killed, frozen, slowed and emptied in the middle of load, and no call is the worse for it."""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import pytest

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.fallback import FallbackLimiter
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")

TIMEOUT = 0.5
# The time-out, and some more for a machine that is busy with other tests.
BOUND = 20
# Nothing comes back while the test runs, so whatever is admitted too much or too little is seen.
ONCE = Limit(1, 0.01)
CALLERS = 30
DOWN, UP = StoreState.FALLBACK, StoreState.SHARED


class Load:
    """Callers without a pause, each call by somebody new, whom the policy allows just that one call."""

    def __init__(self, url: str, on_failure: Literal["local", "refuse"] = "local", *, timeout: float = TIMEOUT) -> None:
        self.changes: list[StoreState] = []
        self.calls = 0
        self.denied = 0
        self.refused: list[Refused] = []
        self.slowest = 0.0
        self._stop = False
        self._client = RedisClient(url, timeout=timeout)
        self.limiter = FallbackLimiter(RedisLimiter(self._client), MemoryLimiter(), on_failure=on_failure, every=0.05)

    async def run(self, disturb: Callable[[Load], Awaitable[None]]) -> None:
        await self.limiter.connect()
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call())
            await self.until(lambda: self.calls > 300)
            await disturb(self)
            calls = self.calls
            await self.until(lambda: self.calls > calls + 300)
            self._stop = True
        await self.limiter.aclose()
        await self._client.aclose()

    async def _call(self) -> None:
        while not self._stop:
            self.calls += 1
            began = time.monotonic()
            try:
                decision = await self.limiter.take(f"caller {self.calls}", ONCE)
                self.denied += not decision.allowed
            except Refused as refused:
                self.refused.append(refused)
            self.slowest = max(self.slowest, time.monotonic() - began)
            if self.limiter.state is not (self.changes[-1] if self.changes else UP):
                self.changes.append(self.limiter.state)
            await asyncio.sleep(0.001)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110  # seen by the load, which runs in this loop
                await asyncio.sleep(0.005)

    async def until_it_is(self, state: StoreState) -> None:
        await self.until(lambda: self.limiter.state is state and DOWN in self.changes)


def disturbance(name: str, redis: RedisServer) -> Callable[[Load], Awaitable[None]]:
    async def killed(load: Load) -> None:
        await asyncio.to_thread(redis.kill)
        await load.until_it_is(DOWN)
        await asyncio.to_thread(redis.start)
        await load.until_it_is(UP)

    async def frozen(load: Load) -> None:
        redis.freeze()
        await load.until_it_is(DOWN)
        redis.thaw()
        await load.until_it_is(UP)

    async def slowed(load: Load) -> None:
        async with asyncio.timeout(30):
            # Two time-outs in a row take longer while this process is slow, because it counts them in ticks.
            while DOWN not in load.changes:
                await asyncio.to_thread(redis.do, "DEBUG", "SLEEP", "1.5")
        await load.until_it_is(UP)

    async def read_only(load: Load) -> None:
        redis.do("REPLICAOF", "127.0.0.1", 1)
        await load.until_it_is(DOWN)
        redis.do("REPLICAOF", "NO", "ONE")
        await load.until_it_is(UP)

    return {"killed": killed, "frozen": frozen, "slowed": slowed, "read-only": read_only}[name]


DISTURBANCES = ["killed", "frozen", "slowed", "read-only"]


@pytest.mark.parametrize("name", DISTURBANCES)
async def test_no_call_is_refused_and_none_waits_long(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, "agenta_ai_server")
    load = Load(redis.url)
    await load.run(disturbance(name, redis))
    assert (load.denied, load.refused) == (0, [])
    said = [record.levelname for record in caplog.records if "limiter" in record.getMessage()]
    # Once for each change. On a busy machine Redis may also fail again, after it has recovered.
    assert said[:2] == ["WARNING", "INFO"]
    assert all(before != after for before, after in pairwise(said))
    assert load.slowest < BOUND


@pytest.mark.parametrize("name", DISTURBANCES)
async def test_or_calls_are_refused_at_once_with_a_delay(redis: RedisServer, name: str) -> None:
    load = Load(redis.url, on_failure="refuse")
    await load.run(disturbance(name, redis))
    assert load.denied == 0
    assert load.refused
    assert {refused.reason for refused in load.refused} == {Reason.RATE_LIMITER_UNAVAILABLE}
    assert {refused.retry_delay for refused in load.refused} == {0.05}
    assert load.slowest < BOUND


@pytest.mark.parametrize("on_failure", ["local", "refuse"])
async def test_an_emptied_store_isnt_even_noticed(redis: RedisServer, on_failure: Literal["local", "refuse"]) -> None:
    async def emptied(load: Load) -> None:
        for command in ("SCRIPT", "FLUSH"), ("FLUSHALL",):
            await asyncio.to_thread(redis.do, *command)

    load = Load(redis.url, on_failure, timeout=10)
    await load.run(emptied)
    assert (load.changes, load.denied, load.refused) == ([], 0, [])


async def test_while_the_store_is_down_a_burst_is_still_a_burst(redis: RedisServer) -> None:
    client = RedisClient(redis.url, timeout=30)
    limiter = FallbackLimiter(RedisLimiter(client), MemoryLimiter())
    await limiter.connect()
    redis.kill()
    limit = Limit(10, 0.01)
    admitted = sum([(await limiter.take("a", limit)).allowed for _ in range(100)])
    assert admitted == 10
    assert limiter.state is DOWN
    await limiter.aclose()
    await client.aclose()


async def test_a_store_that_is_down_at_the_start_is_used_once_it_is_there(redis: RedisServer) -> None:
    redis.kill()
    client = RedisClient(redis.url, timeout=30)
    limiter = FallbackLimiter(RedisLimiter(client), MemoryLimiter(), every=0.01)
    await limiter.connect()
    assert limiter.state is DOWN
    await asyncio.to_thread(redis.start)
    async with asyncio.timeout(10):
        while limiter.state is DOWN:
            assert (await limiter.take("a", Limit(1000, 60_000))).allowed
            await asyncio.sleep(0.01)
    await limiter.aclose()
    await client.aclose()
