"""Bounds the requests that are being received or wait to be read."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

Turn: TypeAlias = "asyncio.Future[None]"


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
        # The waiting requests of each caller, in the order of arrival. A caller whose turn has come goes to the end.
        self._lines: dict[Hashable, OrderedDict[Turn, None]] = {}

    def try_enter(self, caller: Hashable) -> bool:
        """Take a place, unless the caller must wait for one; :meth:`leave` gives it back."""
        if not self._has_place(caller):
            return False
        self._take_place(caller)
        return True

    async def enter(self, caller: Hashable) -> None:
        """Wait for a place, and take it; :meth:`leave` gives it back."""
        turn: Turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(caller, turn)
            else:
                # Its turn had come.
                self.leave(caller)
            raise

    def waiting(self, caller: Hashable) -> int:
        """Count the caller's requests that wait for a place."""
        return len(self._lines.get(caller, ()))

    def leave(self, caller: Hashable) -> None:
        """Give a place back, and let those that wait have what they may have now."""
        self._total -= 1
        self._places[caller] -= 1
        if not self._places[caller]:
            del self._places[caller]
        for waiting in list(self._lines):
            if self._has_place(waiting) and (turn := self._next(waiting)):
                self._take_place(waiting)
                turn.set_result(None)

    def _has_place(self, caller: Hashable) -> bool:
        held = self._places[caller]
        return held < self._max_per_caller and (not held or self._total < self._max_total)

    def _take_place(self, caller: Hashable) -> None:
        self._places[caller] += 1
        self._total += 1

    def _next(self, caller: Hashable) -> Turn | None:
        """Take the caller's first turn that is still waited for out of its line, and send the caller to the end."""
        line = self._lines.pop(caller)
        while line:
            turn, _ = line.popitem(last=False)
            # One that has just been cancelled may not have left yet.
            if not turn.done():
                if line:
                    self._lines[caller] = line
                return turn
        return None

    def _forget(self, caller: Hashable, turn: Turn) -> None:
        line = self._lines.get(caller)
        if line and turn in line:
            del line[turn]
            if not line:
                del self._lines[caller]
