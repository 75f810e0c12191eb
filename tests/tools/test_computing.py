"""What takes long is computed by one thread, for one caller after the other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agenta_ai_server.tools.computing import LONG_CHARACTERS, Computing

LONG = LONG_CHARACTERS + 1


class Work:
    """Work that lasts until it may end, and tells who was served."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.may_end = threading.Event()
        self.running = self.most = 0

    def __call__(self, name: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.may_end.wait(10)
        self.running -= 1
        self.done.append(name)
        return name


async def test_one_thread_serves_one_caller_after_the_other() -> None:
    computing, work = Computing(), Work()
    names = ["a1", "a2", "a3", "b1"]
    tasks = [asyncio.create_task(computing.run(name[0], work, LONG, name)) for name in names]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*tasks) == names
    assert work.done == ["a1", "b1", "a2", "a3"]
    assert work.most == 1


async def test_short_work_waits_for_nothing() -> None:
    computing, work = Computing(), Work()
    task = asyncio.create_task(computing.run("a", work, LONG, "a"))
    await asyncio.sleep(0)
    assert await computing.run("a", str.upper, LONG_CHARACTERS, "b") == "B"
    work.may_end.set()
    assert await task == "a"


async def test_it_raises_what_the_work_raises() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await Computing().run("a", int, LONG, "x")
