"""Bounds the large requests that have arrived and wait to be read."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


class Backlog:
    """Counts the bytes of waiting requests. A caller with too many waits before its next request is taken from grpc.

    Meanwhile, HTTP/2's flow control holds that request back, and most of it takes memory at the caller only. A caller
    without a waiting request never waits: callers that use up the backlog must not lock out the others.

    Args:
        of_caller: How many bytes of one caller may wait before its next request is taken.
        in_all: How many bytes of all callers may wait before the next request of one of these is taken.
    """

    def __init__(self, of_caller: int, in_all: int) -> None:
        self._max_of_caller = of_caller
        self._max_in_all = in_all
        self._bytes: Counter[Hashable] = Counter()
        # In the order of arrival. A turn that has come has a result.
        self._turns: dict[asyncio.Future[None], Hashable] = {}

    def is_full(self, caller: Hashable) -> bool:
        """Return whether the caller must wait before its next request is taken."""
        held = self._bytes.get(caller, 0)
        return held >= self._max_of_caller or (held > 0 and self._bytes.total() >= self._max_in_all)

    async def room(self, caller: Hashable) -> None:
        """Wait until the next request of the caller may be taken. :meth:`admit_next` must be called afterwards."""
        turn = asyncio.get_running_loop().create_future()
        self._turns[turn] = caller
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.admit_next()
            raise
        finally:
            del self._turns[turn]

    def admit_next(self) -> None:
        """Let the first caller that waits and may go on do so."""
        for turn, caller in self._turns.items():
            if not turn.done() and not self.is_full(caller):
                turn.set_result(None)
                return

    @contextmanager
    def holding(self, caller: Hashable, size: int) -> Iterator[None]:
        """Count a request for as long as it waits to be read."""
        self._bytes[caller] += size
        try:
            yield
        finally:
            self._bytes[caller] -= size
            if not self._bytes[caller]:
                del self._bytes[caller]
            self.admit_next()
