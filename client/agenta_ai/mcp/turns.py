"""Takes turns, so that nobody holds the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns:
    """Runs functions in the order in which they were added, one per iteration of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, function: Callable[[], None]) -> None:
        """Run a function when all that were added before it have run."""
        self._waiting.append(function)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        function = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run_next)
        function()


class PacedTurns:
    """Lets one caller after the other do something long, with pauses for everything else.

    A turn lasts until the task that has it waits for something. After that, the event loop is free for at least as long
    as the turn took.
    """

    def __init__(self) -> None:
        self._taken = asyncio.Lock()
        # In these, the others of each caller wait until its first one has had its turn.
        self._of_callers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, caller: str) -> None:
        """Wait for a turn of the caller. Its turns come in the order in which they were asked for."""
        own = self._of_callers.setdefault(caller, asyncio.Lock())
        async with own:
            await self._taken.acquire()
        loop = asyncio.get_running_loop()
        loop.call_soon(self._pause, loop.time())

    def _pause(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(loop.time() - began, self._taken.release)
