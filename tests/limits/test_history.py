"""Memory, Redis and a model written out in other terms give the same answers to the same history."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

import pytest
import throttled
from conftest import SLOW
from hypothesis import given, settings
from hypothesis import strategies as st
from throttled import RateLimiterType, Throttled

from agenta_ai_server.limits.limiter import Decision, Limit, RateLimiter
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis_server import RedisServer

EVENTS = 100_000 if SLOW else 20_000
LIMITS = [
    Limit(10, 30),
    Limit(30, 90),
    Limit(300, 900),
    Limit(1, 1),
    Limit(1, 60_000),
    Limit(3, 7.3),
    Limit(1000, 60_000),
    Limit(2, 0.01),
]


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise, in microseconds since 1970, as the store has them."""

    now: int = 1_763_735_000_000_000

    def __call__(self) -> float:
        return self.now / 1_000_000


class Model:
    """A bucket that calls are poured into and that leaks, in fractions: exact, slow and obvious."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[Fraction, int, int]] = {}

    def check(self, key: str, limit: Limit, calls: int) -> Decision:
        now = self._clock.now
        leaks = ceil(60_000_000 / Fraction(str(limit.per_minute)))
        level, leaked, at = self._buckets.get(key, (Fraction(0), leaks, now))
        level = max(Fraction(0), level - Fraction(now - at, leaked))
        level = min(level * leaked / leaks, Fraction(limit.burst))
        allowed = level + 1 <= limit.burst
        if allowed:
            level += calls
        self._buckets[key] = (level, leaks, now)
        return Decision(
            allowed,
            floor(limit.burst - level),
            float(max(Fraction(0), (level + 1 - limit.burst) * leaks) / 1_000_000),
            float(level * leaks / 1_000_000),
        )


def history(seed: int, count: int) -> Iterator[tuple[int, str, Limit, int]]:
    """Microseconds that pass, a key, its limit, which changes now and then, and the calls to take."""
    chance = random.Random(seed)
    held: dict[str, Limit] = {}
    for _ in range(count):
        key = f"key {min(chance.randrange(40), chance.randrange(40))}"
        if key not in held or chance.random() < 0.001:
            held[key] = chance.choice(LIMITS)
        passes = chance.choice([0, 0, 0, 1, chance.randrange(1000), chance.randrange(300_000), 66_667])
        if chance.random() < 0.0005:
            passes = chance.randrange(10_000_000_000)
        yield passes, key, held[key], chance.random() < 0.85


async def check(limiter: RateLimiter, key: str, limit: Limit, calls: int) -> Decision:
    return await (limiter.take if calls else limiter.peek)(key, limit)


@pytest.mark.needs("redis-server")
@pytest.mark.timeout(300)
async def test_memory_redis_and_the_model_agree_on_every_event(redis: RedisServer) -> None:
    clock = Clock()
    client = RedisClient(redis.url, timeout=30)
    model, memory, shared = Model(clock), MemoryLimiter(clock=clock), RedisLimiter(client, clock=clock)
    admitted = 0
    for number, (passes, key, limit, calls) in enumerate(history(5, EVENTS)):
        clock.now += passes
        expected = model.check(key, limit, calls)
        assert await check(memory, key, limit, calls) == expected, f"memory, event {number}"
        assert await check(shared, key, limit, calls) == expected, f"Redis, event {number}"
        admitted += expected.allowed
    await client.aclose()
    assert 0.2 * EVENTS < admitted < 0.8 * EVENTS


STEPS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.booleans()), max_size=60)


@given(st.integers(1, 6), st.sampled_from([60, 120, 240]), STEPS)
@settings(max_examples=200)
def test_throttled_py_agrees(burst: int, per_minute: int, steps: list[tuple[int, str, bool]]) -> None:
    """Its numbers are floats, so time goes in steps that these hold exactly: eighths of a second."""
    clock = Clock(0)
    memory, limit = MemoryLimiter(clock=clock), Limit(burst, per_minute)
    quota = throttled.per_duration(timedelta(minutes=1), per_minute, burst)
    other = Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=throttled.MemoryStore())

    async def compare() -> None:
        for eighths, key, take in steps:
            clock.now += eighths * 125_000
            ours = await check(memory, key, limit, take)
            if take:
                result = other.limit(key)
                assert ours.allowed is not result.limited
            state = other.peek(key)
            assert (ours.remaining, ours.reset) == (state.remaining, state.reset_after)
            assert ours.delay == max(0, ours.reset - (burst - 1) * 60 / per_minute)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("throttled.utils.now_mono_f", clock)
        asyncio.run(compare())


@given(st.sampled_from(LIMITS), st.integers(0, 3))
def test_a_burst_of_n_admits_exactly_n_and_denied_calls_cost_nothing(limit: Limit, denied: int) -> None:
    clock = Clock()
    memory = MemoryLimiter(clock=clock)

    async def burst() -> int:
        return sum([(await memory.take("a", limit)).allowed for _ in range(limit.burst + denied)])

    async def run() -> None:
        assert await burst() == limit.burst
        clock.now += limit.interval - 1
        assert not (await memory.take("a", limit)).allowed
        clock.now += 1
        assert (await memory.take("a", limit)).allowed
        assert not (await memory.take("a", limit)).allowed
        clock.now += limit.burst * limit.interval
        assert await burst() == limit.burst

    asyncio.run(run())
