"""A store that falls back to the memory of this process while its shared ledger fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.ledger import Lost
from agenta_ai_server.idempotency.store import Leading

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.store_state import StoreState
    from agenta_ai_server.idempotency.store import Claim, Lease, LedgerStore

# Seconds before a store that failed is asked again: each question may take as long as its time-out.
PAUSE = 1.0


class LocalFallback:
    """Uses the shared store, or the memory of this process while the shared store is unavailable.

    Meanwhile, repeats that reach the process of the first call are billed once, and repeats that reach another are
    billed again. For this, the memory has all runs of this process, within its bounds.

    Args:
        shared: The store of all processes, whose runs may begin unrecorded.
        local: A store of this process.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, shared: LedgerStore, local: LedgerStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._local = local
        self._clock = clock
        self._resume = clock()

    @property
    def state(self) -> StoreState:
        """SHARED or FALLBACK."""
        return self._shared.state

    async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
        """Ask to run an id; see :meth:`Store.claim`.

        Raises:
            Refused: REQUEST_ID_REUSED, or REPLAY_STORE_UNAVAILABLE if both have failed.
        """
        if self._shared.has_unrecorded(key) or self._clock() >= self._resume:
            try:
                claim = await self._shared.claim(key, fingerprint, waited=waited, rerun=rerun)
            except Refused as refused:
                if refused.reason is not Reason.REPLAY_STORE_UNAVAILABLE:
                    raise
                self._resume = self._clock() + PAUSE
            else:
                return await self._remembered(claim, key, fingerprint, waited, rerun)
        return await self._local.claim(key, fingerprint, waited=waited, rerun=rerun)

    async def _remembered(self, shared: Claim, key: str, fingerprint: bytes, waited: str, rerun: bool) -> Claim:
        """Have the memory note the run of a claim; the memory answers if it knows a run that the shared store doesn't.

        Raises:
            Refused: REQUEST_ID_REUSED.
        """
        if not isinstance(shared, Leading | Lost):
            return shared
        try:
            local = await self._local.claim(key, fingerprint, waited=waited, rerun=rerun)
        except Refused as refused:
            if refused.reason is Reason.REPLAY_STORE_UNAVAILABLE:
                # The memory is full.
                return shared
            await _give_back(shared)
            raise
        match shared, local:
            case Leading(lease=theirs), Leading(lease=ours):
                return Leading(_BothLeases(theirs, ours))
            case Lost(), Leading():
                # A run that the memory doesn't know either.
                await _give_back(local)
                return shared
        await _give_back(shared)
        return local


async def _give_back(claim: Claim) -> None:
    if isinstance(claim, Leading):
        await claim.lease.release()


@dataclass(frozen=True, slots=True)
class _BothLeases:
    """The lease of a run in the shared store, and in the memory of this process, which never fails."""

    shared: Lease
    local: Lease

    async def begin(self) -> None:
        await self.shared.begin()
        await self.local.begin()

    async def complete(self, data: bytes | None, *, keep: bool) -> None:
        await self.local.complete(data, keep=keep)
        await self.shared.complete(data, keep=keep)

    async def release(self) -> None:
        await self.local.release()
        await self.shared.release()

    async def abandon(self) -> None:
        await self.local.abandon()
        await self.shared.abandon()

    async def followed(self) -> float:
        return max(await self.shared.followed(), await self.local.followed())
