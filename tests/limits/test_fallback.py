"""When the shared limiter is left, and when it is taken up again; its store is played by the tests."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.fallback import FallbackLimiter
from agenta_ai_server.limits.limiter import Decision, Limit, StoreFailed
from agenta_ai_server.limits.memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = Limit(2, 1)
LATE = StoreFailed("TimeoutError", timed_out=True)
BROKEN = StoreFailed("ConnectionError")
FINE = Decision(True, 99, 0, 0)


class Shared:
    """Answers as it is told, and counts who asks."""

    def __init__(self) -> None:
        self.failure: StoreFailed | None = None
        self.checks = 0
        self.probes = 0
        self.answer = asyncio.Event()
        self.answer.set()
        self.closed = False

    @property
    def state(self) -> StoreState:
        return StoreState.SHARED

    async def connect(self) -> None:
        self.probes += 1
        await self.answer.wait()
        if self.failure:
            raise self.failure

    async def aclose(self) -> None:
        self.closed = True

    async def take(self, key: str, limit: Limit) -> Decision:
        self.checks += 1
        await self.answer.wait()
        if self.failure:
            raise self.failure
        return FINE

    peek = take


class Watched:
    """A fallback limiter, and its parts."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.shared = Shared()
        self.now = 0.0
        self.limiter = FallbackLimiter(
            self.shared,
            MemoryLimiter(clock=lambda: self.now),
            on_failure="refuse" if refuse else "local",
            every=1,
            clock=lambda: self.now,
        )

    async def take(self) -> Decision:
        return await self.limiter.take("a", LIMIT)

    async def state(self) -> StoreState:
        await self.let_probe_end()
        return self.limiter.state

    async def let_probe_end(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    await watched.limiter.aclose()


async def test_the_shared_limiter_decides_while_it_answers(watched: Watched) -> None:
    await watched.limiter.connect()
    assert await watched.take() == FINE
    assert await watched.limiter.peek("a", LIMIT) == FINE
    assert watched.limiter.state is StoreState.SHARED


async def test_one_time_out_is_decided_locally_and_two_in_a_row_are_enough(watched: Watched) -> None:
    watched.shared.failure = LATE
    assert (await watched.take()).remaining == 1
    assert watched.limiter.state is StoreState.SHARED
    watched.shared.failure = None
    watched.now += 60
    assert await watched.take() == FINE
    watched.shared.failure = LATE
    assert (await watched.take()).remaining == 0
    assert watched.limiter.state is StoreState.SHARED
    assert not (await watched.take()).allowed
    assert await watched.state() is StoreState.FALLBACK


async def test_a_store_that_fails_now_and_then_gives_no_second_bucket(watched: Watched) -> None:
    assert [await watched.take() for _ in range(2)] == [FINE, FINE]
    watched.shared.failure = BROKEN
    assert not (await watched.take()).allowed
    watched.now += 60
    assert (await watched.take()).allowed


async def test_calls_that_time_out_together_are_one_time_out(watched: Watched) -> None:
    watched.shared.failure = LATE
    for state in (StoreState.SHARED, StoreState.FALLBACK):
        watched.shared.answer.clear()
        waiting = [asyncio.create_task(watched.take()) for _ in range(50)]
        await asyncio.sleep(0)
        watched.shared.answer.set()
        await asyncio.gather(*waiting)
        assert watched.limiter.state is state


async def test_an_answer_in_between_does_not_make_two_of_calls_that_began_together(watched: Watched) -> None:
    together = [asyncio.Event(), asyncio.Event()]
    watched.shared.failure = LATE
    waiting = []
    for watched.shared.answer in together:
        waiting.append(asyncio.create_task(watched.take()))
        await asyncio.sleep(0)
    together[0].set()
    await waiting[0]
    watched.shared.failure, watched.shared.answer = None, together[0]
    assert await watched.take() == FINE
    watched.shared.failure = LATE
    together[1].set()
    await waiting[1]
    await watched.take()
    assert watched.limiter.state is StoreState.SHARED


async def test_one_error_is_enough(watched: Watched) -> None:
    watched.shared.failure = BROKEN
    assert (await watched.take()).allowed
    assert watched.limiter.state is StoreState.FALLBACK


async def test_no_call_waits_for_a_store_that_is_down_and_one_probe_at_a_time_finds_it_again(watched: Watched) -> None:
    watched.shared.failure = BROKEN
    await watched.take()
    watched.shared.answer.clear()
    for _ in range(100):
        await asyncio.wait_for(watched.take(), 10)
    assert (watched.shared.checks, watched.shared.probes) == (1, 0)
    watched.now = 0.49
    await watched.take()
    await watched.let_probe_end()
    assert watched.shared.probes == 0
    watched.now = 1
    for _ in range(100):
        await watched.take()
        await watched.let_probe_end()
    assert watched.shared.probes == 1
    watched.shared.answer.set()
    await watched.let_probe_end()
    assert watched.limiter.state is StoreState.FALLBACK
    watched.now = 2
    watched.shared.failure = None
    await watched.take()
    await watched.let_probe_end()
    assert watched.shared.probes == 2
    assert await watched.take() == FINE


async def test_both_changes_are_logged_once_whatever_was_under_way(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched.shared.answer.clear()
    waiting = [asyncio.create_task(watched.take()) for _ in range(50)]
    await asyncio.sleep(0)
    watched.shared.failure = BROKEN
    watched.shared.answer.set()
    await asyncio.gather(*waiting)
    watched.shared.failure = None
    watched.now = 1
    for _ in range(50):
        await watched.take()
        await watched.let_probe_end()
    assert [record.getMessage() for record in caplog.records] == [
        "the rate limiter's store is failing (ConnectionError): each process counts on its own until it works again",
        "the rate limiter's store works again: replicas share the limits",
    ]


async def test_a_single_time_out_after_a_recovery_is_one_again(watched: Watched) -> None:
    watched.shared.failure = BROKEN
    await watched.take()
    watched.shared.failure = None
    watched.now = 1
    await watched.take()
    await watched.let_probe_end()
    watched.shared.failure = LATE
    await watched.take()
    assert watched.limiter.state is StoreState.SHARED


async def test_refusing_says_when_to_try_again() -> None:
    watched = Watched(refuse=True)
    watched.shared.failure = LATE
    for _ in range(5):
        with pytest.raises(Refused) as raised:
            await watched.take()
        assert raised.value.reason is Reason.RATE_LIMITER_UNAVAILABLE
        assert raised.value.retry_delay == 1
    assert watched.shared.checks == 2
    watched.shared.failure = None
    watched.now = 1
    with pytest.raises(Refused):
        await watched.take()
    await watched.let_probe_end()
    assert await watched.take() == FINE
    await watched.limiter.aclose()


async def test_a_store_that_fails_at_the_start_is_found_later(watched: Watched) -> None:
    watched.shared.failure = BROKEN
    await watched.limiter.connect()
    assert watched.limiter.state is StoreState.FALLBACK
    assert (await watched.take()).remaining == 1
    watched.shared.failure = None
    watched.now = 1
    await watched.take()
    await watched.let_probe_end()
    assert await watched.take() == FINE


async def test_closing_ends_a_probe(watched: Watched) -> None:
    watched.shared.failure = BROKEN
    await watched.take()
    watched.shared.answer.clear()
    watched.now = 1
    await watched.take()
    await watched.let_probe_end()
    assert watched.shared.probes == 1
    await watched.limiter.aclose()
    assert watched.shared.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}
