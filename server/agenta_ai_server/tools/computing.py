"""Computes what takes long in a thread, so that other calls don't wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from agenta_ai_server.concurrency.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Result = TypeVar("Result")

# From here on reading a text takes more than a few milliseconds.
LONG_CHARACTERS = 4_000


class Computing:
    """Computes for one caller after the other: threads share one interpreter, and many would slow down the event loop.

    It belongs to the event loop that computes first.
    """

    def __init__(self) -> None:
        self._turns = Turns()

    async def run(self, caller: Hashable, work: Callable[..., Result], size: int, *args: object) -> Result:
        """Return ``work(*args)``. Long work runs in a thread, when it is the caller's turn.

        Args:
            caller: Whose work it is.
            work: The function; its errors propagate.
            size: Characters to process; more than 4,000 count as long.
            args: Arguments of ``work``.
        """
        return work(*args) if size <= LONG_CHARACTERS else await self.in_thread(caller, work, *args)

    async def in_thread(self, caller: Hashable, work: Callable[..., Result], *args: object) -> Result:
        """Return ``work(*args)``, which runs in a thread, when it is the caller's turn.

        Args:
            caller: Whose work it is.
            work: The function; its errors propagate.
            args: Arguments of ``work``.
        """
        return await self._turns.run(caller, lambda: asyncio.to_thread(work, *args))
