"""Lets callers take turns at something that only a few can use at the same time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Hashable

Result = TypeVar("Result")


class Turns:
    """Serves one caller after the other, so that a caller with much work doesn't keep the others waiting.

    It belongs to the event loop in which the first caller waits.

    Args:
        places: How many callers are served at the same time, at least 1. No caller is served twice at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = asyncio.Semaphore(places)
        # For each caller that waits or is served: its lock, and how many pieces of work it has here.
        self._callers: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncIterator[None]:
        """Wait for the caller's turn, and hold it. Pieces of work of one caller are served in the order of arrival."""
        own, pieces = self._callers.get(caller, (asyncio.Lock(), 0))
        self._callers[caller] = (own, pieces + 1)
        try:
            async with own, self._places:
                yield
        finally:
            own, pieces = self._callers.pop(caller)
            if pieces > 1:
                self._callers[caller] = (own, pieces - 1)

    async def run(self, caller: Hashable, work: Callable[[], Coroutine[object, object, Result]]) -> Result:
        """Do the work when it is the caller's turn.

        If this is cancelled, work that has begun still holds the turn until its end, because a thread can't be stopped.

        Args:
            caller: Who it is for.
            work: What is to be done. What it raises is raised.
        """
        async with self.turn(caller):
            task = asyncio.ensure_future(work())
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                while not task.done():
                    # It may be cancelled more than once.
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()  # nobody is left who could get it
                raise
