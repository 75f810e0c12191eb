"""Runs and results of this process alone, while the store that replicas share can't be reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.idempotency.memory import MemoryStore
    from agenta_ai_server.idempotency.store import Claim, Store, StoreState

# Seconds before a store that failed is asked again: each question may take as long as its time-out.
PAUSE = 1.0


class LocalFallback:
    """Asks the shared store, and in its place the memory of this process while it is unavailable.

    Then repeats that reach this process are still paid for once, and those that reach another are paid for again.

    Args:
        shared: The store of all replicas.
        local: The store of this process.
        clock: Seconds that only go forward.
    """

    def __init__(self, shared: Store, local: MemoryStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._local = local
        self._clock = clock
        self._resume = clock()

    @property
    def state(self) -> StoreState:
        """SHARED or FALLBACK, as the shared store knows best."""
        return self._shared.state

    @property
    def falls_back(self) -> bool:
        """Whether the shared store is left alone because it failed just now."""
        return self._clock() < self._resume

    def __contains__(self, key: str) -> bool:
        """Say whether this process can answer for the id by itself."""
        return key in self._local or key in self._shared

    async def claim(self, key: str, fingerprint: bytes, waited: str = "") -> Claim:
        """Ask to run an id.

        Raises:
            Refused: REQUEST_ID_REUSED.
        """
        # What began in one of them ends there, also when the shared store fails or is back.
        if key in self._shared or (key not in self._local and not self.falls_back):
            try:
                return await self._shared.claim(key, fingerprint, waited)
            except Refused as refused:
                if refused.reason is not Reason.REPLAY_STORE_UNAVAILABLE:
                    raise
                self._resume = self._clock() + PAUSE
        return await self._local.claim(key, fingerprint, waited)
