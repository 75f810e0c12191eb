"""Callers take turns, whatever each of them asks for and whoever leaves."""

from __future__ import annotations

import asyncio

import pytest

from agenta_ai_server.concurrency.turns import Turns


class Work:
    """Work that lasts until it is told to end."""

    def __init__(self, turns: Turns, done: list[str], name: str) -> None:
        self._done = done
        self._name = name
        self.began, self.end = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(turns.run(name[0], self._work))

    async def _work(self) -> str:
        self.began.set()
        await self.end.wait()
        self._done.append(self._name)
        return self._name


async def test_callers_take_turns() -> None:
    done: list[str] = []
    turns = Turns()
    work = [Work(turns, done, name) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
    await work[0].began.wait()
    for each in work:
        each.end.set()
    assert await asyncio.gather(*(each.task for each in work)) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_who_leaves_the_queue_is_not_served() -> None:
    done: list[str] = []
    turns = Turns()
    first, second, third = (Work(turns, done, name) for name in ("a1", "b1", "c1"))
    await first.began.wait()
    second.task.cancel()
    first.end.set()
    third.end.set()
    await third.task
    assert done == ["a1", "c1"]
    assert second.task.cancelled()


async def test_work_that_has_begun_holds_its_turn_when_its_caller_leaves() -> None:
    done: list[str] = []
    turns = Turns()
    first, second = (Work(turns, done, name) for name in ("a1", "b1"))
    await first.began.wait()
    # A task may be cancelled again, by the deadline and then by the caller's leaving.
    for _ in range(3):
        first.task.cancel()
        await asyncio.wait({first.task}, timeout=0)
        assert not second.began.is_set()
    first.end.set()
    second.end.set()
    assert await second.task == "b1"
    assert first.task.cancelled()
    assert done == ["a1", "b1"]


async def test_work_may_fail() -> None:
    turns = Turns()

    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await turns.run("a", fail)
    done: list[str] = []
    last = Work(turns, done, "a1")
    last.end.set()
    assert await last.task == "a1"
