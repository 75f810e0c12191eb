"""Does long work on the event loop in steps, with pauses for everything else."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from agenta_ai_server.concurrency.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

Result = TypeVar("Result")


class PacedWork:
    """Does the long work of one caller after the other, step by step.

    After each step, the event loop is free for at least as long as the step took, so that all long work together takes
    at most half of a core, and other work waits for one step at a time. Work with nothing ahead of it begins when the
    last pause is over. It belongs to the event loop in which the first work waits.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._turns = Turns()
        self._clock = clock
        # When the next step may begin.
        self._resume_at = 0.0

    async def run(self, caller: Hashable, steps: Generator[None, None, Result]) -> Result:
        """Do the work when it is the caller's turn. If cancelled, the remaining steps aren't done.

        Args:
            caller: Whose work it is.
            steps: The work, which yields after each step but the last. What it raises is raised.

        Returns:
            What ``steps`` returns.
        """
        async with self._turns.turn(caller):
            while True:
                if (pause := self._resume_at - self._clock()) > 0:
                    await asyncio.sleep(pause)
                began = self._clock()
                try:
                    next(steps)
                except StopIteration as done:
                    result: Result = done.value
                    return result
                finally:
                    ended = self._clock()
                    self._resume_at = ended + (ended - began)
