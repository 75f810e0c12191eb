"""The states of an id, and the rules of each step. ``lua/`` has the same rules for Redis.

``docs/architecture.md`` has the diagram.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.idempotency.ledger import (
    ENDING_SECONDS,
    FOLLOWER_SECONDS,
    Claimed,
    EndKind,
    Finished,
    Following,
    Lost,
    Reused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.idempotency.ledger import ClaimAnswer, Ending, Hold, Run


class State(IntEnum):
    """The state of an id. An id that isn't in the table is new, or has expired."""

    CLAIMED = 0
    """A run is about to begin. It hasn't been billed."""
    BEGUN = 1
    """A run may have been billed. It is lost when its lease has run out."""
    FINISHED = 2
    """A run has ended with an outcome, which may be stored."""
    LOST = 3
    """A run may have been billed, and there is no outcome."""


@dataclass(slots=True)
class Entry:
    """The entry of one id.

    Attributes:
        fingerprint: What it stands for.
        state: The state of the run that is under way, or how the last one ended.
        token: The run that is under way; empty if there is none.
        spent: Whether a run before that one may have been billed.
        leased_until: When the run counts as dead unless it is held again.
        expires: When the entry is forgotten.
        followed_until: Until when a claimant elsewhere counts as waiting.
        data: The outcome, if it is stored.
    """

    fingerprint: bytes
    state: State
    token: str = ""
    spent: bool = False
    leased_until: float = 0.0
    expires: float = 0.0
    followed_until: float = 0.0
    data: bytes | None = None

    @property
    def is_running(self) -> bool:
        return self.state in (State.CLAIMED, State.BEGUN)


class Table(Protocol):
    """Holds the entries, and for a while the outcomes that aren't kept."""

    def get(self, key: str) -> Entry | None: ...

    def put(self, key: str, entry: Entry) -> None: ...

    def delete(self, key: str) -> None: ...

    def get_ending(self, token: str) -> bytes | None: ...

    def put_ending(self, token: str, data: bytes, expires: float) -> None: ...


class Rules:
    """Applies the steps to a table. Each step must see the table alone.

    Args:
        table: Holds the entries.
        ttl: Seconds for which an id is remembered after its run; 0 forgets it at once.
        lease: Seconds after which a run that isn't held again counts as dead.
        clock: Seconds; the same for all who share the table.
    """

    def __init__(self, table: Table, ttl: float, lease: float, clock: Callable[[], float]) -> None:
        self._table = table
        self._ttl = ttl
        self._lease = lease
        self._clock = clock

    def claim(self, run: Run, waited: str, rerun: bool) -> ClaimAnswer:
        """Claim an id; see :meth:`Ledger.claim`."""
        now = self._clock()
        entry = self._find(run.key, now)
        if waited and (entry is None or entry.token != waited):
            ending = self._table.get_ending(waited)
            if ending is not None:
                return Finished(ending)
        if entry is None:
            return self._take(run, now, spent=False)
        if entry.fingerprint != run.fingerprint:
            return Reused()
        if entry.is_running and entry.token == run.token:
            return Claimed()
        if entry.is_running and now < entry.leased_until:
            # At most the length of a lease: the clock may have been set back, and the holder may be dead.
            entry.leased_until = min(entry.leased_until, now + self._lease)
            entry.followed_until = now + FOLLOWER_SECONDS
            self._table.put(run.key, entry)
            return Following(entry.token)
        if entry.data is not None:
            return Finished(entry.data)
        return self._take(run, now, spent=True) if rerun else Lost()

    def hold(self, hold: Hold) -> bool:
        """Renew a lease, and record that its run has begun; see :meth:`Ledger.hold`."""
        run, begun = hold
        now = self._clock()
        entry = self._find(run.key, now)
        if entry is None:
            # The table has lost it, or the lease has run out and no one has claimed the id since.
            entry = Entry(run.fingerprint, State.CLAIMED, token=run.token)
        elif entry.token != run.token:
            return False
        if begun:
            entry.state = State.BEGUN
        self._renew(entry, now)
        self._table.put(run.key, entry)
        return True

    def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended; see :meth:`Ledger.end`."""
        now = self._clock()
        entry = self._find(run.key, now)
        if ending.kind is EndKind.KEPT and self._ttl > 0:
            self._keep(run, entry, ending.data, now)
            return
        if entry and entry.token == run.token:
            is_lost = entry.spent or (entry.state is State.BEGUN and ending.kind is EndKind.ABANDONED)
            if is_lost and self._ttl > 0:
                lost = Entry(entry.fingerprint, State.LOST, spent=True, expires=now + self._ttl)
                self._table.put(run.key, lost)
            else:
                self._table.delete(run.key)
        if ending.data is not None:
            self._table.put_ending(run.token, ending.data, now + ENDING_SECONDS)

    def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant elsewhere counts as waiting."""
        now = self._clock()
        entry = self._find(key, now)
        return max(entry.followed_until - now, 0.0) if entry else 0.0

    def _find(self, key: str, now: float) -> Entry | None:
        entry = self._table.get(key)
        if entry is None or now >= entry.expires:
            return None
        is_free = entry.state is State.CLAIMED and not entry.spent and now >= entry.leased_until
        return None if is_free else entry

    def _take(self, run: Run, now: float, *, spent: bool) -> Claimed:
        entry = Entry(run.fingerprint, State.CLAIMED, token=run.token, spent=spent)
        self._renew(entry, now)
        self._table.put(run.key, entry)
        return Claimed()

    def _renew(self, entry: Entry, now: float) -> None:
        entry.leased_until = now + self._lease
        may_be_billed = entry.spent or entry.state is State.BEGUN
        entry.expires = entry.leased_until + (self._ttl if may_be_billed else 0.0)

    def _keep(self, run: Run, entry: Entry | None, data: bytes | None, now: float) -> None:
        # The first outcome stays, even if a caller has rerun the id meanwhile.
        if entry and (entry.fingerprint != run.fingerprint or entry.data is not None):
            return
        if entry and entry.state is State.FINISHED and data is None:
            return
        finished = Entry(run.fingerprint, State.FINISHED, spent=True, expires=now + self._ttl, data=data)
        self._table.put(run.key, finished)
