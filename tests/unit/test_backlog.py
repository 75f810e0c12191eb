"""Places for requests: whose turn is next, and what that costs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from garbage import without_garbage_collection

from agenta_ai_server.rpc.backlog import Backlog

if TYPE_CHECKING:
    from types import FrameType


async def waiting(backlog: Backlog, *callers: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(backlog.enter(caller)) for caller in callers]
    await asyncio.sleep(0)
    return tasks


async def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_a_caller_that_has_none_never_waits() -> None:
    backlog = Backlog(2, 2)
    assert [backlog.try_enter(caller) for caller in "aaab"] == [True, True, False, True]


async def test_a_place_goes_to_the_one_that_has_waited_longest() -> None:
    backlog = Backlog(1, 10)
    assert backlog.try_enter("a")
    tasks = await waiting(backlog, "a", "a")
    assert backlog.waiting("a") == 2
    backlog.leave("a")
    assert await done(tasks) == [True, False]
    backlog.leave("a")
    assert await done(tasks) == [True, True]
    assert backlog.waiting("a") == 0


async def test_callers_take_turns() -> None:
    backlog = Backlog(3, 3)
    assert [backlog.try_enter(caller) for caller in "aab"] == [True, True, True]
    tasks = await waiting(backlog, "a", "a", "b")
    assert backlog.try_enter("c")
    backlog.leave("c")
    assert await done(tasks) == [False, False, False]
    backlog.leave("a")
    assert await done(tasks) == [True, False, False]
    backlog.leave("a")
    assert await done(tasks) == [True, False, True]


async def test_a_caller_that_has_none_left_does_not_wait_for_others() -> None:
    backlog = Backlog(2, 2)
    assert [backlog.try_enter(caller) for caller in "ab"] == [True, True]
    tasks = await waiting(backlog, "b", "a")
    backlog.leave("a")
    assert await done(tasks) == [True, True]


@pytest.mark.parametrize("has_come", [False, True])
async def test_one_that_is_cancelled_takes_no_place(has_come: bool) -> None:
    backlog = Backlog(1, 10)
    assert backlog.try_enter("a")
    [first, second] = await waiting(backlog, "a", "a")
    if has_come:
        backlog.leave("a")
    first.cancel()
    assert await done([first, second]) == [True, has_come]
    if not has_come:
        backlog.leave("a")
        assert await done([second]) == [True]
    assert backlog.waiting("a") == 0
    assert not backlog.try_enter("a")
    backlog.leave("a")
    assert backlog.try_enter("a")


def steps_of_a_request(count: int) -> int:
    """How many lines run until a request of another caller has come and gone while so many wait."""

    async def measure() -> int:
        backlog = Backlog(1, 10)
        backlog.try_enter("a")
        tasks = await waiting(backlog, *["a"] * count)
        lines = 0

        def trace(_: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        # A garbage collection would run lines, too: Hypothesis measures how long each takes.
        with without_garbage_collection():
            sys.settrace(trace)
            backlog.try_enter("b")
            backlog.leave("b")
            sys.settrace(None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return lines

    return asyncio.run(measure())


def test_a_request_costs_the_same_however_many_others_wait() -> None:
    assert steps_of_a_request(1000) == steps_of_a_request(1) > 0
