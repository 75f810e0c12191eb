"""A store that falls back to the memory of this process while its shared ledger fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.store_state import StoreState
    from agenta_ai_server.idempotency.memory import MemoryLedger
    from agenta_ai_server.idempotency.store import Claim, LedgerStore

# Seconds before a store that failed is asked again: each question may take as long as its time-out.
PAUSE = 1.0


class LocalFallback:
    """Uses the shared store, or the memory of this process while the shared store is unavailable.

    Meanwhile, repeats that reach this process are billed once, and repeats that reach another are billed again.

    Args:
        shared: The store of all processes, whose runs may begin unrecorded.
        local: A store of this process, on ``ledger``.
        ledger: The ledger of the local store.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        shared: LedgerStore,
        local: LedgerStore,
        ledger: MemoryLedger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._local = local
        self._ledger = ledger
        self._clock = clock
        self._resume = clock()

    @property
    def state(self) -> StoreState:
        """SHARED or FALLBACK."""
        return self._shared.state

    async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
        """Ask to run an id; see :meth:`Store.claim`.

        Raises:
            Refused: REQUEST_ID_REUSED.
        """
        # What began in one of them ends there, also when the shared store fails or is back.
        is_local = key in self._ledger or self._clock() < self._resume
        if key in self._shared or not is_local:
            try:
                return await self._shared.claim(key, fingerprint, waited=waited, rerun=rerun)
            except Refused as refused:
                if refused.reason is not Reason.REPLAY_STORE_UNAVAILABLE:
                    raise
                self._resume = self._clock() + PAUSE
        return await self._local.claim(key, fingerprint, waited=waited, rerun=rerun)
