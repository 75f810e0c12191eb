"""Long work takes at most half of the time, one caller after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from concurrency.virtual_time import virtual_time

from agenta_ai_server.concurrency.pacing import PacedWork

if TYPE_CHECKING:
    from collections.abc import Generator


class Timeline:
    """A clock on which steps take as long as they say, and what happened when."""

    def __init__(self) -> None:
        self._stepped = 0.0
        self.events: list[tuple[str, float]] = []

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self._stepped

    def steps(self, name: str, *seconds: float) -> Generator[None, None, str]:
        for each in seconds[:-1]:
            self._step(name, each)
            yield
        self._step(name, seconds[-1])
        return name

    def _step(self, name: str, seconds: float) -> None:
        self.events.append((name, self.now()))
        self._stepped += seconds


@virtual_time
async def test_each_step_is_followed_by_a_pause_of_its_length() -> None:
    timeline = Timeline()
    assert await PacedWork(timeline.now).run("a", timeline.steps("a", 1, 3, 1)) == "a"
    assert timeline.events == [("a", 0), ("a", 2), ("a", 8)]


@virtual_time
async def test_callers_take_turns() -> None:
    timeline = Timeline()
    work = PacedWork(timeline.now)
    await asyncio.gather(
        *(work.run("a", timeline.steps(f"a{number}", 1, 1)) for number in range(3)),
        work.run("b", timeline.steps("b", 1)),
    )
    assert timeline.events == [("a0", 0), ("a0", 2), ("b", 4), ("a1", 6), ("a1", 8), ("a2", 10), ("a2", 12)]


@virtual_time
async def test_work_that_nothing_is_ahead_of_begins_at_once() -> None:
    timeline = Timeline()
    work = PacedWork(timeline.now)
    await work.run("a", timeline.steps("a", 1))
    await asyncio.sleep(5)
    await work.run("a", timeline.steps("a", 1))
    assert timeline.events == [("a", 0), ("a", 6)]


@virtual_time
async def test_who_leaves_holds_up_nobody() -> None:
    timeline = Timeline()
    work = PacedWork(timeline.now)
    # The first is in its pause, the second waits for its turn.
    leaving = [asyncio.create_task(work.run("a", timeline.steps("left", 1, 1))) for _ in range(2)]
    stays = asyncio.create_task(work.run("a", timeline.steps("stays", 1)))
    await asyncio.sleep(0.5)
    for each in leaving:
        each.cancel()
    await stays
    assert all(each.cancelled() for each in leaving)
    assert timeline.events == [("left", 0), ("stays", 2)]


@virtual_time
async def test_a_step_that_fails_ends_the_work_and_is_followed_by_a_pause() -> None:
    timeline = Timeline()

    def failing() -> Generator[None, None, str]:
        yield from timeline.steps("failed", 1)
        raise LookupError

    work = PacedWork(timeline.now)
    with pytest.raises(LookupError):
        await work.run("a", failing())
    await work.run("b", timeline.steps("b", 1))
    assert timeline.events == [("failed", 0), ("b", 2)]
