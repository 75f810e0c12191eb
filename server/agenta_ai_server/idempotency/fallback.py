"""A store that falls back to the memory of this process while its shared ledger fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.store import Leading, LedgerStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.store_state import StoreState
    from agenta_ai_server.idempotency.sealing import Sealing
    from agenta_ai_server.idempotency.store import Claim, Lease

# Seconds before a store that failed is asked again: each question may take as long as its time-out.
PAUSE = 1.0


class LocalFallback:
    """Uses the shared store, or the memory of this process while the shared store is unavailable.

    Meanwhile, repeats that reach this process are billed once, and repeats that reach another are billed again.

    Args:
        shared: The store of all processes, whose runs may begin unrecorded.
        ttl: Seconds for which an id is remembered after its run.
        sealing: The form in which outcomes are stored.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        shared: LedgerStore,
        *,
        ttl: float = 600,
        sealing: Sealing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._ledger = MemoryLedger(ttl)
        self._local = LedgerStore(self._ledger, ttl=ttl, sealing=sealing)
        # What this process has run in the shared store, which knows it better for as long as it is available.
        self._known_ledger = MemoryLedger(ttl)
        self._known = LedgerStore(self._known_ledger, ttl=ttl, sealing=sealing)
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
                claim = await self._shared.claim(key, fingerprint, waited=waited, rerun=rerun)
                return await self._remembered(claim, key, fingerprint)
            except Refused as refused:
                if refused.reason is not Reason.REPLAY_STORE_UNAVAILABLE:
                    raise
                self._resume = self._clock() + PAUSE
        if key in self._known_ledger and key not in self._ledger:
            claim = await self._known.claim(key, fingerprint, waited=waited, rerun=rerun)
            if not isinstance(claim, Leading):
                return claim
            await claim.lease.release()
        return await self._local.claim(key, fingerprint, waited=waited, rerun=rerun)

    async def _remembered(self, claim: Claim, key: str, fingerprint: bytes) -> Claim:
        """Return the claim of the shared store; if it is a run, one that this process remembers, too."""
        if not isinstance(claim, Leading):
            return claim
        try:
            known = await self._known.claim(key, fingerprint, rerun=True)
        except Refused:
            return claim
        return Leading(_RememberedLease(claim.lease, known.lease)) if isinstance(known, Leading) else claim


@dataclass(slots=True, eq=False)
class _RememberedLease:
    """A lease in the shared store whose run this process remembers, too."""

    shared: Lease
    known: Lease

    async def begin(self) -> None:
        await self.shared.begin()
        await self.known.begin()

    async def complete(self, data: bytes | None, *, keep: bool) -> None:
        await self.known.complete(data, keep=keep)
        await self.shared.complete(data, keep=keep)

    async def release(self) -> None:
        await self.known.release()
        await self.shared.release()

    async def abandon(self) -> None:
        await self.known.abandon()
        await self.shared.abandon()

    async def followed(self) -> float:
        return await self.shared.followed()
