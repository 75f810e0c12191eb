"""Buckets of calls that refill steadily: the generic cell rate algorithm (ITU-T I.371)."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MICROSECONDS = 1_000_000
"""Time is counted in whole microseconds, which a double holds exactly: Redis's scripts have no other numbers."""

# Each write can make one entry stale. Checking two per write keeps up with that.
LOOKS = 2

Key = TypeVar("Key", bound="Hashable")


class Buckets(Generic[Key]):
    """Keeps for each bucket the moment when it will be full (GCRA's theoretical arrival time).

    A full bucket carries no information, so later calls drop it. If there are too many, the bucket that will be full
    soonest is dropped early, so a flood of new keys doesn't reset an exhausted bucket. For use by one event loop.
    ``limits/gcra.lua`` does the same in Redis.

    Args:
        max_keys: Buckets to remember at most, at least 1; each takes about 250 bytes.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, max_keys: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._full_at: dict[Key, int] = {}
        # A heap with one entry for each bucket: when it would have been full without the calls since it was entered.
        self._soonest: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        """Count the buckets that are remembered."""
        return len(self._full_at)

    def take(self, key: Key, interval: int, burst: int, calls: int = 1) -> tuple[bool, int]:
        """Take calls from a bucket, if it has one.

        Args:
            key: Names the bucket.
            interval: Microseconds in which one call comes back.
            burst: Calls that the bucket holds.
            calls: Calls to take, 0 or 1.

        Returns:
            Whether a call may be made, and the microseconds until the bucket is full.
        """
        now = self._now()
        full_at = self._full_at.get(key, now)
        # At most the refill time of the current limit: the limit may have been larger.
        wait = min(max(full_at - now, 0), burst * interval)
        allowed = wait <= (burst - 1) * interval
        if allowed:
            wait += calls * interval
        if wait and now + wait != full_at:
            self._remember(key, now + wait, now)
        return allowed, wait

    def charge(self, key: Key, interval: int, calls: int = 1) -> None:
        """Take calls from a bucket whether or not it has them, so that it may owe some."""
        now = self._now()
        self._remember(key, max(self._full_at.get(key, now), now) + calls * interval, now)

    def delay(self, key: Key, interval: int, burst: int) -> float:
        """Return the seconds until the bucket has a call, all that it owes included; 0 if it has one."""
        now = self._now()
        return max(self._full_at.get(key, now) - now - (burst - 1) * interval, 0) / MICROSECONDS

    def _now(self) -> int:
        return round(self._clock() * MICROSECONDS)

    def _remember(self, key: Key, full_at: int, now: int) -> None:
        for _ in range(LOOKS):
            if self._soonest and self._soonest[0][0] <= now:
                self._forget_first()
        if key not in self._full_at:
            while len(self._full_at) >= self._max_keys:
                self._forget_first()
            heapq.heappush(self._soonest, (full_at, key))
        self._full_at[key] = full_at

    def _forget_first(self) -> None:
        """Forget the bucket that is full soonest; if its entry is old, bring that up to date instead."""
        entered, key = self._soonest[0]
        if self._full_at[key] > entered:
            heapq.heapreplace(self._soonest, (self._full_at[key], key))
        else:
            heapq.heappop(self._soonest)
            del self._full_at[key]
