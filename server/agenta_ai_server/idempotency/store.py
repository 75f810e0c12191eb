"""Decides which process runs an id, and stores outcomes for a while, in any ledger."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.record import record
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.idempotency.ledger import (
    FOLLOWER_SECONDS,
    Claimed,
    Ending,
    EndKind,
    Finished,
    Following,
    Hold,
    LedgerFailed,
    Lost,
    Reused,
    Run,
)
from agenta_ai_server.idempotency.pending_writes import PendingEnd, PendingWrites
from agenta_ai_server.idempotency.sealing import Plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.idempotency.ledger import Ledger
    from agenta_ai_server.idempotency.sealing import Sealing

UNAVAILABLE = "The idempotency store is unavailable. Retry with the same request_id."

Result = TypeVar("Result")
# Answers for which nothing is written. They come from a full disk too, and don't show that the ledger works again.
_READ = (Finished, Lost, Reused, float)

log = logging.getLogger(__name__)


class LeaseLost(Refused):
    """Another process has claimed the id, because this one didn't renew its lease in time. Claim it again."""


class Lease(Protocol):
    """The right to run an id, until :meth:`complete`, :meth:`release` or :meth:`abandon` gives it back."""

    async def begin(self) -> None:
        """Record durably that the run is about to cost something. Costs nothing when it has been recorded before.

        Raises:
            LeaseLost: The id is another process's to run.
            Refused: REPLAY_STORE_UNAVAILABLE, because it couldn't be recorded.
        """

    async def complete(self, data: bytes | None, *, keep: bool) -> None:
        """Record the outcome. Never fails: what can't be recorded now is recorded later.

        Args:
            data: The outcome, encoded; ``None`` if it isn't to be stored.
            keep: Whether later repeats get it too. If not, nothing was billed, and a later repeat runs the id again.
        """

    async def release(self) -> None:
        """Give the id back to be run by others: nothing was billed. Never fails."""

    async def abandon(self) -> None:
        """End without an outcome: the id is lost if the run has begun, and free otherwise. Never fails."""

    async def followed(self) -> float:
        """Return for how many more seconds a later claimant of the id counts as waiting; 0 if none does."""


@record
class Leading:
    """The claimant runs the id."""

    lease: Lease


Claim: TypeAlias = Leading | Following | Finished | Lost


class Store(Protocol):
    """Decides which process runs an id, and stores outcomes for a while."""

    @property
    def state(self) -> StoreState:
        """Where ids are recorded now, as far as is known from the last question."""

    async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
        """Ask to run an id.

        Args:
            key: Names the id. Holds no personal data, for example because it is a hash.
            fingerprint: What the id stands for; the same in every repeat.
            waited: The token of the run that the claimant has been waiting for, if it has. It counts as waiting for as
                long as claims come; each counts for about two seconds.
            rerun: Whether to run an id again whose outcome is lost.

        Raises:
            Refused: REQUEST_ID_REUSED, or REPLAY_STORE_UNAVAILABLE.
        """


class LedgerStore:
    """A store on one ledger.

    A run holds a lease, which is renewed for as long as it lasts, so that a process that dies is noticed. What decides
    whether a repeat is billed is the record that the run has begun, and not the lease.

    Args:
        ledger: Records the ids. Closed with this.
        ttl: Seconds for which the ledger remembers an id after its run.
        lease: Seconds of a lease in the ledger; renewed every third of it.
        sealing: The form in which outcomes are stored.
        begin_unrecorded: Whether a run may begin although that couldn't be recorded, and so may be billed twice.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        ttl: float = 600,
        lease: float = 10,
        sealing: Sealing | None = None,
        begin_unrecorded: bool = False,
    ) -> None:
        self.ledger = ledger
        self._ttl = ttl
        self._lease_seconds = lease
        self._sealing = sealing or Plain()
        self._begin_unrecorded = begin_unrecorded
        self._prefix = uuid4().hex[:12]
        self._numbers = itertools.count()
        # By the keys of their ids.
        self._leases: dict[str, LedgerLease] = {}
        # The runs whose ends the ledger is recording, by the same keys.
        self._ending: dict[str, Run] = {}
        self._pending = PendingWrites()
        self._tasks: set[asyncio.Task[None]] = set()
        self._available = True

    @property
    def state(self) -> StoreState:
        """SHARED or LOCAL; FALLBACK if the ledger didn't answer the last question."""
        if not self._available:
            return StoreState.FALLBACK
        return StoreState.SHARED if self.ledger.is_shared else StoreState.LOCAL

    def has_unrecorded(self, key: str) -> bool:
        """Return whether the id has an outcome here that the ledger hasn't recorded."""
        return self._pending.kept(key) is not None

    async def start(self) -> None:
        """Open the ledger, and begin to renew leases.

        Raises:
            LedgerFailed: The ledger can't be opened.
        """
        if self.ledger.is_shared:
            # Apart, because thousands of ends may be pending after an outage, while leases run out.
            self._tasks = {asyncio.create_task(self._regularly(work)) for work in (self._renew_all, self.write_pending)}
        await self.ledger.open()

    async def aclose(self) -> None:
        """Stop renewing leases, and close the ledger. Leases that are still held last until they run out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write_pending()
        await self.ledger.aclose()

    async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
        """Ask to run an id; see :meth:`Store.claim`."""
        if own := await self._claim_of_own_run(key, fingerprint):
            return own
        run = self._pending.take_claim(key, fingerprint) or Run(key, fingerprint, self._new_token())
        try:
            answer = await self._ask(self.ledger.claim(run, waited=waited, rerun=rerun))
        except (Refused, asyncio.CancelledError):
            # It may have been recorded, or may still be recorded later.
            until = time.monotonic() + self._lease_seconds
            self._pending.add(PendingEnd(run, Ending(EndKind.RELEASED), until, is_claim=True))
            raise
        match answer:
            case Claimed():
                lease = self._leases[key] = LedgerLease(self, run)
                return Leading(lease)
            case Finished(data):
                return self._finished(key, data)
            case Reused():
                raise reused()
            case _:
                return answer

    async def _claim_of_own_run(self, key: str, fingerprint: bytes) -> Claim | None:
        """Answer a claim for an id that this process runs, or whose outcome the ledger doesn't have yet.

        The ledger isn't asked: if it was away or its clock has jumped, the lease looks as if it had run out.

        Raises:
            Refused: REQUEST_ID_REUSED, or REPLAY_STORE_UNAVAILABLE.
        """
        if lease := self._leases.get(key):
            # Now, because who waits for the run may be asked while its lease is renewed.
            lease.followed_until = time.monotonic() + FOLLOWER_SECONDS
            if await self._is_held(lease):
                _check_fingerprint(lease.run, fingerprint)
                lease.followed_until = time.monotonic() + FOLLOWER_SECONDS
                return Following(lease.run.token)
        # Only now, because the run may have ended while its lease was renewed.
        if ending := self._ending.get(key):
            _check_fingerprint(ending, fingerprint)
            return Following(ending.token)
        if pending := self._pending.kept(key):
            _check_fingerprint(pending.run, fingerprint)
            return self._finished(key, pending.ending.data)
        return None

    def _finished(self, key: str, data: bytes | None) -> Finished | Lost:
        opened = None if data is None else self._sealing.unseal(key, data)
        return Lost() if opened is None else Finished(opened)

    def _new_token(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"

    async def _ask(self, question: Awaitable[Result]) -> Result:
        try:
            answer = await question
        except LedgerFailed as failure:
            self._set_available(failure)
            raise unavailable() from None
        if not isinstance(answer, _READ):
            self._set_available(None)
        return answer

    def _set_available(self, failure: LedgerFailed | None) -> None:
        """Note whether the ledger works. Log only changes, not each failure in between."""
        if failure and self._available:
            log.error("the idempotency store is failing: %s", failure.why)
        elif not failure and not self._available:
            log.info("the idempotency store works again")
        self._available = failure is None

    async def _regularly(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            # Retry sooner after a failure, because leases run out meanwhile.
            await asyncio.sleep(self._lease_seconds / (3 if self._available else 12))
            try:
                await work()
            except Exception as error:
                # Without this, the task would end unseen, and running calls would soon look lost.
                log.error("leases and outcomes couldn't be recorded because of a bug: %s", type(error).__name__)

    async def _renew_all(self) -> None:
        with suppress(Refused):
            await self._renew(list(self._leases.values()))

    async def _renew(self, leases: list[LedgerLease]) -> None:
        if not leases:
            return
        holds = [Hold(lease.run, lease.begun) for lease in leases]
        held = await self._ask(self.ledger.hold(holds))
        for lease, hold, is_held in zip(leases, holds, held, strict=True):
            # It may have begun or ended meanwhile. If it has begun, the next answer says whether it is still held.
            if not is_held and lease.begun == hold.begun and self._forget(lease.run):
                log.warning("a lease wasn't renewed in time, and another process has claimed its request_id")

    async def _is_held(self, lease: LedgerLease) -> bool:
        """Renew a lease, and return whether its run is still the one of the id.

        Raises:
            Refused: REPLAY_STORE_UNAVAILABLE.
        """
        await self._renew([lease])
        return self._leases.get(lease.run.key) is lease

    def _forget(self, run: Run) -> bool:
        """Renew the lease of a run no more, and return whether it was still renewed."""
        if not self._renews(run):
            return False
        del self._leases[run.key]
        return True

    def _renews(self, run: Run) -> bool:
        """Return whether the lease of a run is renewed."""
        lease = self._leases.get(run.key)
        return lease is not None and lease.run == run

    async def begin(self, run: Run) -> None:
        """Record that a run has begun; see :meth:`Lease.begin`."""
        try:
            [is_held] = await self._ask(self.ledger.hold([Hold(run, begun=True)]))
        except Refused:
            if not self._begin_unrecorded:
                raise
            return
        # One that was given up isn't renewed any more, even if the id has become free meanwhile.
        if not is_held or not self._renews(run):
            raise lease_lost()

    async def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended, now or as soon as the ledger can."""
        self._forget(run)
        if ending.data is not None:
            ending = Ending(ending.kind, self._sealing.seal(run.key, ending.data))
        # For as long as the ledger may remember that it has begun.
        until = time.monotonic() + max(self._ttl, self._lease_seconds)
        self._ending[run.key] = run
        try:
            await self._ask(self.ledger.end(run, ending))
        except Refused:
            self._pending.add(PendingEnd(run, ending, until))
        finally:
            if self._ending.get(run.key) is run:
                del self._ending[run.key]

    async def write_pending(self) -> None:
        """Record the ends of runs that the ledger doesn't have yet."""
        for end in self._pending.current():
            if end not in self._pending:
                # A claim has taken its run while the others were written.
                continue
            # Once it is written, it may be recorded at any time: no claim may use its run any more.
            end.is_claim = False
            try:
                await self._ask(self.ledger.end(end.run, end.ending))
            except Refused:
                # One that never fits must not block the others.
                self._pending.postpone(end)
                return
            self._pending.remove(end)

    async def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant elsewhere counts as waiting.

        Raises:
            Refused: REPLAY_STORE_UNAVAILABLE.
        """
        return await self._ask(self.ledger.followed(key))


@dataclass(slots=True, eq=False)
class LedgerLease:
    """A lease in a ledger.

    Attributes:
        begun: Whether something may be billed from now on.
        followed_until: Until when a claimant in this process counts as waiting, in seconds on the monotonic clock.
        in_doubt: Whether the ledger couldn't say, the last time, if a claimant is waiting elsewhere.
    """

    store: LedgerStore
    run: Run
    begun: bool = False
    followed_until: float = 0.0
    in_doubt: bool = False

    async def begin(self) -> None:
        if not self.begun:
            await self.store.begin(self.run)
            self.begun = True

    async def complete(self, data: bytes | None, *, keep: bool) -> None:
        kind = EndKind.KEPT if keep else EndKind.PASSED_ON
        await self.store.end(self.run, Ending(kind, data))

    async def release(self) -> None:
        await self.store.end(self.run, Ending(EndKind.RELEASED))

    async def abandon(self) -> None:
        # Nothing is sent before begin() has returned.
        kind = EndKind.ABANDONED if self.begun else EndKind.RELEASED
        await self.store.end(self.run, Ending(kind))

    async def followed(self) -> float:
        was_in_doubt, self.in_doubt = self.in_doubt, False
        try:
            elsewhere = await self.store.followed(self.run.key)
        except Refused:
            self.in_doubt = True
            # Not while the ledger is unavailable: callers elsewhere are refused meanwhile.
            elsewhere = 0.0 if was_in_doubt else FOLLOWER_SECONDS
        # A claimant here may have come while the ledger was asked.
        return max(elsewhere, self.followed_until - time.monotonic())


def reused() -> Refused:
    """Return the refusal of an id that stands for something else."""
    return Refused(
        Reason.REQUEST_ID_REUSED,
        "This request_id was used before, with other arguments or for another tool. Send a new one for each new call.",
    )


def _check_fingerprint(run: Run, fingerprint: bytes) -> None:
    if run.fingerprint != fingerprint:
        raise reused()


def unavailable() -> Refused:
    """Return the refusal for a ledger that fails."""
    return Refused(Reason.REPLAY_STORE_UNAVAILABLE, UNAVAILABLE, retry_delay=_delay())


def lease_lost() -> LeaseLost:
    """Return the refusal for a run whose id another process has claimed."""
    return LeaseLost(Reason.REPLAY_STORE_UNAVAILABLE, UNAVAILABLE, retry_delay=_delay())


def _delay() -> float:
    return random.uniform(1, 2)  # noqa: S311  # spread, not secret
