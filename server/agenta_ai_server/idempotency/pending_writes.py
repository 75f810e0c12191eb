"""What a Redis that fails is still to be told, kept in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenta_ai_server.idempotency.redis import RedisLease

# What all may take in memory. The oldest make room for new ones.
MAX_BYTES = 64 << 20


@dataclass(slots=True, eq=False)
class RunOutcome:
    """How a run ended.

    Attributes:
        lease: Its run's right.
        ended: As Redis has it: a sign of how, and the result.
        keep_ms: For how many milliseconds it is kept for repeats; 0 for none.
        until: When it makes no difference any more, because what it is about has run out.
        is_claim: Whether nothing is known of the run but that it was asked for, so that it may still begin.
    """

    lease: RedisLease
    ended: bytes
    keep_ms: int
    until: float
    is_claim: bool = False

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes."""
        # Beside its bytes: itself, its lease with two names, and a link and a slot of the ordered dictionary.
        return len(self.ended) + 1000


class PendingWrites:
    """The ends of runs that Redis hasn't heard of, one for an id and the oldest first."""

    def __init__(self) -> None:
        self._ends: OrderedDict[str, RunOutcome] = OrderedDict()
        self._size = 0

    def add(self, end: RunOutcome) -> None:
        """Note an end, in the place of an earlier one of its id; a claim takes no other's place."""
        known = self._ends.get(end.lease.key)
        if known and end.is_claim:
            return
        if known:
            self.remove(known)
        self._ends[end.lease.key] = end
        self._size += end.size
        while self._size > MAX_BYTES:
            self.remove(next(iter(self._ends.values())))

    def remove(self, end: RunOutcome) -> None:
        """Forget an end."""
        if self._ends.get(end.lease.key) is end:
            del self._ends[end.lease.key]
            self._size -= end.size

    def current(self) -> list[RunOutcome]:
        """Return those that still make a difference, and forget the others."""
        for end in list(self._ends.values()):
            if end.until <= time.monotonic():
                self.remove(end)
        return list(self._ends.values())

    def result(self, key: str) -> RunOutcome | None:
        """Return the end that later repeats get too, if this id has one here."""
        end = self._ends.get(key)
        return end if end and end.keep_ms and time.monotonic() < end.until else None

    def take_claim(self, key: str, fingerprint: bytes) -> RedisLease | None:
        """Take a claim of which nobody knows whether it was heard: made again, it is recognized."""
        end = self._ends.get(key)
        if not (end and end.is_claim and end.lease.fingerprint == fingerprint):
            return None
        self.remove(end)
        return end.lease
