"""Answers that wait for their callers to read them: bounded in bytes, and in how long they may wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_BYTES_OF_CALLER = 8 << 20
MAX_BYTES = 256 << 20
#: How long an answer may take to leave. A caller reads an answer of 4 MiB in that time at 200 KiB a second.
MAX_SECONDS = 20.0


class UnsentAnswers:
    """Counts the bytes of answers that grpc holds until they have left.

    Args:
        max_bytes_of_caller: What one caller may leave unread.
        max_bytes: What all callers together may leave unread.
        max_seconds: After these an answer is given up, and its call cancelled.
    """

    def __init__(
        self,
        max_bytes_of_caller: int = MAX_BYTES_OF_CALLER,
        max_bytes: int = MAX_BYTES,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self._max_bytes_of_caller = max_bytes_of_caller
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._of_caller: Counter[Hashable] = Counter()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What all callers together leave unread now."""
        return self._bytes

    def fits(self, caller: Hashable, size: int) -> bool:
        """Say whether the ``caller`` may leave so many bytes more unread. Its first answer may be of any size."""
        held = self._of_caller.get(caller, 0)
        return (not held or held + size <= self._max_bytes_of_caller) and self._bytes + size <= self._max_bytes

    def add(self, caller: Hashable, size: int, task: asyncio.Task[object]) -> UnsentAnswer:
        """Count an answer until it has left; cancel the ``task`` that sends it if it takes too long."""
        self._of_caller[caller] += size
        self._bytes += size
        timer = asyncio.get_running_loop().call_later(self._max_seconds, task.cancel)
        return UnsentAnswer(self, caller, size, timer)

    def _remove(self, caller: Hashable, size: int) -> None:
        self._bytes -= size
        self._of_caller[caller] -= size
        if not self._of_caller[caller]:
            del self._of_caller[caller]


class UnsentAnswer:
    """One answer that hasn't left yet."""

    __slots__ = ("_answers", "_caller", "_size", "_timer")

    def __init__(self, answers: UnsentAnswers, caller: Hashable, size: int, timer: asyncio.TimerHandle) -> None:
        self._answers = answers
        self._caller = caller
        self._size = size
        self._timer = timer

    def sent(self) -> None:
        """Note that it has left, or was given up."""
        self._timer.cancel()
        self._answers._remove(self._caller, self._size)
