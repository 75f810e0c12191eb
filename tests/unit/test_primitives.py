"""The primitives that several parts of the service share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.domain.digest import digest
from agenta_ai_server.domain.gcra import MICROSECONDS, Buckets
from agenta_ai_server.domain.single_flight import SingleFlight

# Hashes


@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4))
def test_a_hash_differs_wherever_a_part_does(one: list[str | bytes], two: list[str | bytes]) -> None:
    def encoded(parts: list[str | bytes]) -> list[bytes]:
        return [part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts]

    assert (digest(*one) == digest(*two)) is (encoded(one) == encoded(two))


def test_hashes_stay_the_same_over_versions() -> None:
    """They name results in Redis and in files, which outlive the process."""
    assert digest("a", b"bc").hex() == "f657d58ed59382298356d21c95353a31"
    assert len(digest("a", size=32)) == 32
    assert digest("\ud800") != digest("?")


# Single flight


class Work:
    def __init__(self) -> None:
        self.runs = 0
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        await self.end.wait()
        if self.error:
            raise self.error
        return self.runs


async def test_callers_of_one_key_share_its_work_though_the_first_one_leaves() -> None:
    flight, work = SingleFlight[str, int](), Work()
    callers = [asyncio.create_task(flight.run("a", work)) for _ in range(10)]
    await asyncio.sleep(0)
    assert "a" in flight
    callers[0].cancel()
    work.end.set()
    assert await asyncio.gather(*callers[1:]) == [1] * 9
    assert "a" not in flight
    assert await flight.run("a", work) == 2


async def test_keys_dont_wait_for_each_other() -> None:
    flight, slow, fast = SingleFlight[str, int](), Work(), Work()
    flight.start("slow", slow)
    fast.end.set()
    assert await flight.run("fast", fast) == 1
    await flight.aclose()
    assert "slow" not in flight


async def test_an_error_is_shared_and_one_that_nobody_waits_for_is_silent() -> None:
    flight, work = SingleFlight[str, int](), Work()
    work.error = ZeroDivisionError()
    callers = [asyncio.create_task(flight.run("a", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.end.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results == [work.error] * 3
    await asyncio.wait([flight.start("a", work)])


# Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_that_is_charged_owes_what_it_hasnt_got() -> None:
    clock = Clock()
    buckets: Buckets[str] = Buckets(10, clock)
    for _ in range(5):
        buckets.charge("a", MICROSECONDS)
    # Three were there, two are owed, and one must be there for the next.
    assert buckets.delay("a", MICROSECONDS, burst=3) == pytest.approx(3)
    clock.now = 2.5
    assert buckets.delay("a", MICROSECONDS, burst=3) == pytest.approx(0.5)
    clock.now = 3
    assert buckets.delay("a", MICROSECONDS, burst=3) == 0
    assert buckets.delay("b", MICROSECONDS, burst=1) == 0


def test_no_more_buckets_are_remembered_than_allowed() -> None:
    buckets: Buckets[int] = Buckets(10, Clock())
    for _ in range(3):
        buckets.charge(-1, MICROSECONDS)
    for number in range(50):
        buckets.charge(number, MICROSECONDS)
    assert len(buckets) == 10
    # The one that is used up most is remembered.
    assert buckets.delay(-1, MICROSECONDS, burst=1) == 3
