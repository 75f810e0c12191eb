"""Counts the calls that are open, so that a stopping server can wait for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a stopping server waits for its last responses to be read. Clients that don't read must not hold it up.
MAX_SEND_SECONDS = 10.0


class OpenCalls:
    """Counts the calls that are running, and those whose response hasn't been sent yet.

    Attributes:
        running: Counts a running call in a ``with`` statement.
    """

    def __init__(self) -> None:
        self.running = _Count()
        self._unsent = _Count()

    def count_until_sent(self) -> None:
        """Count the call of the current task until its response has been sent."""
        self._unsent.add(1)
        when_sent(lambda _: self._unsent.add(-1))

    async def idle(self) -> None:
        """Wait until no call is running, and then at most a few seconds for responses to be sent."""
        while not self._unsent.is_zero.is_set():
            await self.running.is_zero.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_SEND_SECONDS):
                    await self._unsent.is_zero.wait()
            if self.running.is_zero.is_set():
                return


class _Count:
    """A counter of calls.

    Attributes:
        is_zero: Set while there are none.
    """

    def __init__(self) -> None:
        self._number = 0
        self.is_zero = asyncio.Event()
        self.is_zero.set()

    def __enter__(self) -> None:
        self.add(1)

    def __exit__(self, *_: object) -> None:
        self.add(-1)

    def add(self, change: int) -> None:
        if not self._number:
            self.is_zero.clear()
        self._number += change
        if not self._number:
            self.is_zero.set()


def when_sent(callback: Callable[[object], None]) -> None:
    """Call ``callback`` when grpc is done with the current call: its response has been sent, or nobody will read it.

    ``context.add_done_callback`` does the same, at the end of the same task. But it makes the context refer to itself,
    so that each call would stay in memory until the next garbage collection.
    """
    task = asyncio.current_task()
    assert task
    task.add_done_callback(callback)
