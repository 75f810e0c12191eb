"""The limiter in memory remembers a bounded number of buckets, and the right ones."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.memory import MemoryLimiter

LIMIT = Limit(10, 30)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def drain(memory: MemoryLimiter, key: str) -> None:
    while (await memory.take(key, LIMIT)).allowed:
        pass


async def test_its_state_is_local_and_there_is_nothing_to_open_or_close() -> None:
    memory = MemoryLimiter()
    await memory.connect()
    assert (await memory.take("a", LIMIT)).remaining == 9
    await memory.aclose()
    assert memory.state is StoreState.LOCAL


async def test_a_flood_of_new_callers_frees_none_that_has_used_up_its_own() -> None:
    memory = MemoryLimiter(max_keys=100, clock=Clock())
    await drain(memory, "limited")
    for number in range(10_000):
        assert (await memory.take(f"new {number}", LIMIT)).allowed
        assert len(memory) <= 100
    assert not (await memory.take("limited", LIMIT)).allowed


async def test_a_full_bucket_is_forgotten_before_any_other() -> None:
    clock = Clock()
    memory = MemoryLimiter(max_keys=3, clock=clock)
    await memory.take("is full first", LIMIT)
    await memory.take("used more, later", LIMIT)
    clock.now = 1
    for _ in range(3):
        await memory.take("used more, later", LIMIT)
    await memory.take("used last", LIMIT)
    clock.now = 2.5
    await memory.take("new", LIMIT)
    assert (await memory.peek("used more, later", LIMIT)).remaining == 7
    assert (await memory.peek("used last", LIMIT)).remaining == 9
    assert (await memory.peek("is full first", LIMIT)).remaining == 10


async def test_callers_that_went_away_are_forgotten_by_the_calls_of_others() -> None:
    clock = Clock()
    memory = MemoryLimiter(clock=clock)
    for number in range(1000):
        await memory.take(f"gone {number}", LIMIT)
    clock.now = 60
    for _ in range(1200):
        clock.now += 1
        await memory.take("stays", LIMIT)
    assert len(memory) == 1


async def test_to_look_is_not_to_remember() -> None:
    memory = MemoryLimiter()
    await memory.peek("a", LIMIT)
    assert len(memory) == 0


async def test_a_smaller_limit_never_waits_longer_than_it_takes_to_refill() -> None:
    clock = Clock()
    memory = MemoryLimiter(clock=clock)
    for _ in range(300):
        await memory.take("a", Limit(300, 10))
    small = Limit(2, 60)
    assert (await memory.take("a", small)).delay == 1
    clock.now = 1
    assert (await memory.take("a", small)).allowed


async def test_a_plan_that_grows_gives_its_calls_at_once() -> None:
    memory = MemoryLimiter(clock=Clock())
    for _ in range(5):
        await memory.take("a", Limit(10, 30))
    assert (await memory.peek("a", Limit(300, 900))).remaining == 150


KEYS = {
    "a": Limit(1, 60),
    "b": Limit(2, 30),
    "c": Limit(10, 30),
    "d": Limit(3, 600),
    "e": Limit(5, 1),
    "f": Limit(2, 60),
}


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 4000), st.sampled_from(sorted(KEYS))), max_size=80))
@settings(max_examples=300)
def test_what_is_forgotten_is_what_is_full_soonest(max_keys: int, steps: list[tuple[int, str]]) -> None:
    clock = Clock()
    memory = MemoryLimiter(max_keys, clock=clock)
    full_at: dict[str, int] = {}

    async def run() -> None:
        now = 0
        for milliseconds, key in steps:
            now += milliseconds * 1000
            clock.now = now / 1_000_000
            limit = KEYS[key]
            for full in [other for other, moment in full_at.items() if moment <= now]:
                del full_at[full]
            expected = full_at.get(key, now) - now <= (limit.burst - 1) * limit.interval
            assert (await memory.take(key, limit)).allowed is expected
            assert len(memory) <= max_keys
            if expected:
                if key not in full_at and len(full_at) == max_keys:
                    del full_at[min(full_at, key=lambda other: (full_at[other], other))]
                full_at[key] = full_at.get(key, now) + limit.interval

    asyncio.run(run())
