"""Runs and results of one process."""

from __future__ import annotations

import itertools
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.idempotency.store import Claim, Finished, Following, Leading, Outcome, StoreState, reused

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 << 20
# What a result takes beside its bytes: its own object, a float, and a link and a slot of the ordered dictionary.
ENTRY_BYTES = 320
# How many expired results one operation takes out. More than one, so that they leave faster than new ones come.
SWEEP = 8


class MemoryStore:
    """A store for one process and one :class:`~agenta_ai_server.idempotency.in_flight.Runs`. It is never unavailable.

    Args:
        replay_seconds: How long results are kept; 0 keeps none.
        max_bytes: What results may take in memory, all overhead counted. The oldest make room for new ones.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        replay_seconds: float = 600,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replay_seconds = replay_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._tokens = itertools.count()
        self._leases: dict[str, _MemoryLease] = {}
        # The oldest first, which is also the first to expire.
        self._results: OrderedDict[str, _Result] = OrderedDict()
        self._size = 0

    @property
    def state(self) -> StoreState:
        """LOCAL."""
        return StoreState.LOCAL

    @property
    def size(self) -> int:
        """Bytes that the results take in memory, estimated."""
        return self._size

    def __len__(self) -> int:
        """Count the results; some of them may have expired."""
        return len(self._results)

    def __contains__(self, key: str) -> bool:
        """Say whether the id runs here or has a result here."""
        self._sweep()
        return key in self._leases or self._find(key) is not None

    async def claim(self, key: str, fingerprint: bytes, waited: str = "") -> Claim:
        """Ask to run an id.

        Raises:
            Refused: REQUEST_ID_REUSED.
        """
        self._sweep()
        known = self._leases.get(key) or self._find(key)
        if known is None:
            lease = self._leases[key] = _MemoryLease(self, key, fingerprint, str(next(self._tokens)))
            return Leading(lease)
        if known.fingerprint != fingerprint:
            raise reused()
        return Finished(known.data) if isinstance(known, _Result) else Following(known.token)

    def _find(self, key: str) -> _Result | None:
        result = self._results.get(key)
        return result if result and self._clock() < result.expires else None

    def _put(self, key: str, fingerprint: bytes, data: bytes) -> None:
        self._sweep()
        size = ENTRY_BYTES + sum(map(sys.getsizeof, (key, fingerprint, data)))
        if size > self._max_bytes or self._replay_seconds <= 0:
            return
        if key in self._results:
            self._drop(key)
        self._results[key] = _Result(fingerprint, data, self._clock() + self._replay_seconds, size)
        self._size += size
        while self._size > self._max_bytes:
            self._drop(next(iter(self._results)))

    def _drop(self, key: str) -> None:
        self._size -= self._results.pop(key).size

    def _sweep(self) -> None:
        for _ in range(SWEEP):
            key, result = next(iter(self._results.items()), (None, None))
            if key is None or result is None or self._clock() < result.expires:
                return
            self._drop(key)


@dataclass(frozen=True, slots=True)
class _Result:
    fingerprint: bytes
    data: bytes
    expires: float
    size: int


@dataclass(frozen=True, slots=True)
class _MemoryLease:
    store: MemoryStore
    key: str
    fingerprint: bytes
    token: str

    async def complete(self, outcome: Outcome) -> None:
        del self.store._leases[self.key]
        if outcome.keep:
            self.store._put(self.key, self.fingerprint, outcome.data)

    async def fail(self) -> None:
        del self.store._leases[self.key]

    async def release(self) -> None:
        del self.store._leases[self.key]

    async def awaited(self) -> float:
        return 0.0
