"""Bounds the requests that are being received or wait to be read."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Backlog:
    """Gives callers places for their requests. HTTP/2's flow control holds back those without one.

    A caller without a request here never waits: callers that take all places must not lock out the others.

    Args:
        max_per_caller: How many places one caller may have.
        max_total: How many places all callers may have before those that have one wait.
    """

    def __init__(self, max_per_caller: int, max_total: int) -> None:
        self._max_per_caller = max_per_caller
        self._max_total = max_total
        self._places: Counter[Hashable] = Counter()
        self._total = 0
        # In the order of arrival. A turn that has come has a result.
        self._turns: dict[asyncio.Future[None], Hashable] = {}

    def try_enter(self, caller: Hashable) -> bool:
        """Take a place, unless the caller must wait for one; :meth:`leave` gives it back."""
        held = self._places[caller]
        if held >= self._max_per_caller or (held and self._total >= self._max_total):
            return False
        self._places[caller] = held + 1
        self._total += 1
        return True

    async def enter(self, caller: Hashable) -> None:
        """Wait for a place, and take it; :meth:`leave` gives it back."""
        turn = asyncio.get_running_loop().create_future()
        self._turns[turn] = caller
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave(caller)
            raise
        finally:
            del self._turns[turn]

    def leave(self, caller: Hashable) -> None:
        """Give a place back, and let those that wait have it in the order of arrival."""
        self._total -= 1
        self._places[caller] -= 1
        if not self._places[caller]:
            del self._places[caller]
        for turn, waiting in self._turns.items():
            if not turn.done() and self.try_enter(waiting):
                turn.set_result(None)
                return
