"""Keeps the ends of runs that a failing ledger hasn't recorded, in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.idempotency.ledger import EndKind

if TYPE_CHECKING:
    from agenta_ai_server.idempotency.ledger import Ending, Run

# Memory for all ends. The oldest are dropped to make room.
MAX_BYTES = 64 << 20
# Memory of one end in addition to its outcome: the objects, and a link and a slot of the ordered dictionary.
ENTRY_BYTES = 1000


@dataclass(slots=True, eq=False)
class PendingEnd:
    """The end of one run.

    Attributes:
        run: The run.
        ending: How it ended.
        until: When it makes no difference any more, in seconds on the monotonic clock.
        is_claim: Whether only the claim may have been recorded: then a new claim by the same run is recognized.
    """

    run: Run
    ending: Ending
    until: float
    is_claim: bool = False

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes."""
        return len(self.ending.data or b"") + ENTRY_BYTES


class PendingWrites:
    """The ends that are still to be recorded, one for each id and the oldest first."""

    def __init__(self) -> None:
        self._ends: OrderedDict[str, PendingEnd] = OrderedDict()
        self._size = 0

    def __contains__(self, end: PendingEnd) -> bool:
        """Return whether the end is still to be recorded."""
        return self._ends.get(end.run.key) is end

    def add(self, end: PendingEnd) -> None:
        """Note an end in place of an earlier one of its id; a claim takes no other's place."""
        known = self._ends.get(end.run.key)
        if known and end.is_claim:
            return
        if known:
            self.remove(known)
        self._ends[end.run.key] = end
        self._size += end.size
        while self._size > MAX_BYTES:
            self.remove(next(iter(self._ends.values())))

    def remove(self, end: PendingEnd) -> None:
        """Forget an end."""
        if self._ends.get(end.run.key) is end:
            del self._ends[end.run.key]
            self._size -= end.size

    def postpone(self, end: PendingEnd) -> None:
        """Move an end behind the others."""
        if self._ends.get(end.run.key) is end:
            self._ends.move_to_end(end.run.key)

    def current(self) -> list[PendingEnd]:
        """Return the ends that still matter, and forget the others."""
        for end in list(self._ends.values()):
            if end.until <= time.monotonic():
                self.remove(end)
        return list(self._ends.values())

    def kept(self, key: str) -> PendingEnd | None:
        """Return the end whose outcome every repeat gets, if this id has one here."""
        end = self._ends.get(key)
        is_kept = end and end.ending.kind is EndKind.KEPT and time.monotonic() < end.until
        return end if is_kept else None

    def take_claim(self, key: str, fingerprint: bytes) -> Run | None:
        """Take a claim that may or may not have been recorded."""
        end = self._ends.get(key)
        if not (end and end.is_claim and end.run.fingerprint == fingerprint):
            return None
        self.remove(end)
        return end.run
