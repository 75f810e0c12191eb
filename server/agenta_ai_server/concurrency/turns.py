"""Lets callers take turns at something of which there is only one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Hashable

Result = TypeVar("Result")


class Turns:
    """Does one piece of work at a time, for one caller after the other: one caller's can't keep the others waiting.

    It belongs to the event loop that does the first work.
    """

    def __init__(self) -> None:
        self._place = asyncio.Lock()
        # Of each caller that waits or is served, the lock of its work and how many pieces those are.
        self._callers: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    async def run(self, caller: Hashable, work: Callable[[], Coroutine[object, object, Result]]) -> Result:
        """Do the work when it is the caller's turn. Work of one caller is done in the order in which it came.

        If this is cancelled, work that has begun still holds the turn until its end, because a thread can't be stopped.

        Args:
            caller: Who it is for.
            work: What is to be done. Raises what it likes.
        """
        async with self._turn(caller):
            task = asyncio.ensure_future(work())
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.gather(task, return_exceptions=True)
                raise

    @asynccontextmanager
    async def _turn(self, caller: Hashable) -> AsyncIterator[None]:
        own, pieces = self._callers.get(caller, (asyncio.Lock(), 0))
        self._callers[caller] = (own, pieces + 1)
        try:
            async with own, self._place:
                yield
        finally:
            own, pieces = self._callers.pop(caller)
            if pieces > 1:
                self._callers[caller] = (own, pieces - 1)
