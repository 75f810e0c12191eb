"""Counts over the last seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOTS = 20


class Window:
    """Counts events, some of which are special, over the last seconds. What it costs doesn't depend on their number.

    Args:
        seconds: How far back it looks, more than 0. Events are forgotten in twenty steps, so up to 5% too early.
        clock: Seconds that only go forward.

    Attributes:
        events: How many there were; as of the last :meth:`add` or :meth:`forget`.
        special: How many of them were special.
    """

    __slots__ = ("_clock", "_counts", "_newest", "_width", "events", "special")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._width = seconds / _SLOTS
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.events = self.special = 0
        self._counts = [(0, 0)] * _SLOTS
        self._newest = int(self._clock() / self._width)

    def add(self, events: int, special: int) -> None:
        """Count that many events now, ``special`` of them special."""
        self.forget()
        slot = self._newest % _SLOTS
        known, known_special = self._counts[slot]
        self._counts[slot] = known + events, known_special + special
        self.events += events
        self.special += special

    def forget(self) -> None:
        """Forget what is too long ago."""
        now = int(self._clock() / self._width)
        for slot in range(max(self._newest, now - _SLOTS) + 1, now + 1):
            events, special = self._counts[slot % _SLOTS]
            self._counts[slot % _SLOTS] = 0, 0
            self.events -= events
            self.special -= special
        self._newest = now
