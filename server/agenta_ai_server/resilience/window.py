"""Counts over the last seconds."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Key = TypeVar("Key", bound="Hashable")

_SLOTS = 20


class SlidingCounter:
    """Counts events over the last seconds. What it costs doesn't depend on their number.

    Args:
        seconds: How far back it looks, more than 0. Events are forgotten in twenty steps, so up to 5% too early.
        clock: Monotonic clock, in seconds.
    """

    __slots__ = ("_clock", "_count", "_counts", "_newest", "_width")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._width = seconds / _SLOTS
        self._clock = clock
        self._count = 0
        self._counts = [0] * _SLOTS
        self._newest = int(clock() / self._width)

    @property
    def count(self) -> int:
        """How many events there were."""
        self._forget()
        return self._count

    def add(self) -> None:
        """Count one event now."""
        self._forget()
        self._counts[self._newest % _SLOTS] += 1
        self._count += 1

    def _forget(self) -> None:
        """Forget what is too long ago."""
        now = int(self._clock() / self._width)
        for slot in range(max(self._newest, now - _SLOTS) + 1, now + 1):
            self._count -= self._counts[slot % _SLOTS]
            self._counts[slot % _SLOTS] = 0
        self._newest = now


@dataclass(slots=True)
class Counts:
    """How many events there were, and how many of them failures."""

    events: int = 0
    failures: int = 0


class CountsByKey(Generic[Key]):
    """Counts events and failures over the last seconds, separately for each key.

    It holds one entry for each key and step of the window, however many events there are.

    Args:
        seconds: How far back it looks, more than 0. Events are forgotten in twenty steps, so up to 5% too early.
        clock: Monotonic clock, in seconds.

    Attributes:
        total: Of all keys together; as of the last :meth:`add` or :meth:`worst`.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._width = seconds / _SLOTS
        self._clock = clock
        self.total = Counts()
        self._totals: defaultdict[Key, Counts] = defaultdict(Counts)
        self._slots: deque[tuple[int, defaultdict[Key, Counts]]] = deque()

    def clear(self) -> None:
        """Forget everything."""
        self.total = Counts()
        self._totals.clear()
        self._slots.clear()

    def add(self, key: Key, *, failed: bool) -> None:
        """Count one event now."""
        now = self._forget()
        if not self._slots or self._slots[-1][0] != now:
            self._slots.append((now, defaultdict(Counts)))
        for entry in (self.total, self._totals[key], self._slots[-1][1][key]):
            entry.events += 1
            entry.failures += failed

    def worst(self) -> Counts:
        """Return the counts of the key with most failures."""
        self._forget()
        return max(self._totals.values(), key=lambda counts: counts.failures, default=Counts())

    def _forget(self) -> int:
        now = int(self._clock() / self._width)
        while self._slots and self._slots[0][0] <= now - _SLOTS:
            for key, counts in self._slots.popleft()[1].items():
                for total in (self.total, self._totals[key]):
                    total.events -= counts.events
                    total.failures -= counts.failures
                if not self._totals[key].events:
                    del self._totals[key]
        return now


class Expected(Generic[Key]):
    """Knows whether anyone else is expected to call. It remembers two callers, because one of them is another.

    Args:
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[Key, float] = {}

    def add(self, key: Key, seconds: float) -> None:
        """Expect calls of ``key`` for so many seconds from now, at least 0."""
        self._until[key] = max(self._until.get(key, 0.0), self._clock() + seconds)
        if len(self._until) > 2:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def has_other_than(self, key: Key) -> bool:
        """Return whether calls of anyone but ``key`` are expected."""
        now = self._clock()
        return any(until > now for other, until in self._until.items() if other != key)
