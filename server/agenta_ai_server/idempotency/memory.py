"""A ledger in the memory of one process. A restart forgets it."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from agenta_ai_server.idempotency.ledger import LedgerFailed
from agenta_ai_server.idempotency.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenta_ai_server.idempotency.ledger import ClaimAnswer, Ending, Hold, Run
    from agenta_ai_server.idempotency.rules import Entry

MAX_IDS = 250_000
MAX_RESULT_BYTES = 64 << 20
# How many expired entries one step removes. More than one, so that they are removed faster than new ones arrive.
SWEEP = 8


class MemoryLedger:
    """A ledger for one process and one event loop.

    What it takes is bounded: when the outcomes are too large together, the oldest are dropped, and their ids count as
    lost; when there are too many ids, new ones are refused, since a forgotten id could be billed twice.

    Args:
        ttl: Seconds for which an id is remembered after its run; 0 forgets it at once.
        max_ids: Ids to remember at most; each takes about 500 bytes besides its outcome.
        max_bytes: What the outcomes may take together.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        ttl: float = 600,
        *,
        max_ids: int = MAX_IDS,
        max_bytes: int = MAX_RESULT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = _MemoryTable(max_ids, max_bytes, clock)
        # A lease ends with the process, and so does this ledger.
        self._rules = Rules(self._table, ttl, math.inf, clock)

    @property
    def is_shared(self) -> bool:
        """Always false."""
        return False

    async def open(self) -> None:
        """Do nothing: there is nothing to open."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    async def claim(self, run: Run, *, waited: str = "", rerun: bool = False) -> ClaimAnswer:
        """Claim an id; see :meth:`Ledger.claim`."""
        self._table.sweep()
        return self._rules.claim(run, waited, rerun)

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        """Record which runs have begun; see :meth:`Ledger.hold`."""
        return [self._rules.hold(hold) for hold in holds]

    async def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended; see :meth:`Ledger.end`."""
        self._rules.end(run, ending)

    async def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant counts as waiting; see :meth:`Ledger.followed`."""
        return self._rules.followed(key)


class _MemoryTable:
    def __init__(self, max_ids: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_ids = max_ids
        self._max_bytes = max_bytes
        self._clock = clock
        self._running: dict[str, Entry] = {}
        # Entries that have ended, in the order in which they expire, and the sizes of their outcomes in the same order.
        self._ended: OrderedDict[str, Entry] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._endings: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def get(self, key: str) -> Entry | None:
        entry = self._running.get(key) or self._ended.get(key)
        return entry if entry and self._clock() < entry.expires else None

    def put(self, key: str, entry: Entry) -> None:
        if key not in self._running:
            if key not in self._ended and len(self._running) + len(self._ended) >= self._max_ids:
                raise LedgerFailed("TooManyIds")
            self._drop(key)
        if entry.expires == math.inf:
            self._running[key] = entry
            return
        self._running.pop(key, None)
        self._ended[key] = entry
        if entry.data is not None:
            self._sizes[key] = len(entry.data)
            self._bytes += len(entry.data)
            while self._bytes > self._max_bytes:
                oldest = next(iter(self._sizes))
                self._bytes -= self._sizes.pop(oldest)
                self._ended[oldest].data = None

    def delete(self, key: str) -> None:
        self._running.pop(key, None)
        self._drop(key)

    def get_ending(self, token: str) -> bytes | None:
        data, expires = self._endings.get(token, (None, 0.0))
        return data if self._clock() < expires else None

    def put_ending(self, token: str, data: bytes, expires: float) -> None:
        self._endings[token] = data, expires

    def sweep(self) -> None:
        now = self._clock()
        for _ in range(SWEEP):
            key, entry = next(iter(self._ended.items()), (None, None))
            if key is None or entry is None or now < entry.expires:
                break
            self._drop(key)
        for _ in range(SWEEP):
            token, (_data, expires) = next(iter(self._endings.items()), (None, (b"", 0.0)))
            if token is None or now < expires:
                break
            del self._endings[token]

    def _drop(self, key: str) -> None:
        self._ended.pop(key, None)
        self._bytes -= self._sizes.pop(key, 0)
