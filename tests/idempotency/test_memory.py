"""The store of one process: what it keeps, for how long, and in how many bytes."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.fallback import PAUSE, LocalFallback
from agenta_ai_server.idempotency.memory import ENTRY_BYTES, MemoryStore
from agenta_ai_server.idempotency.store import Claim, Finished, Following, Leading, Lease, Outcome, StoreState

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
FINGERPRINTS = st.sampled_from([b"f", b"g"])
TTL, ROOM = 10.0, 5000


async def led(store: MemoryStore, key: str, data: bytes = b"data") -> None:
    claim = await store.claim(key, b"f")
    assert isinstance(claim, Leading)
    await claim.lease.complete(Outcome(data, keep=True))


@dataclass
class Result:
    fingerprint: bytes
    data: bytes
    expires: float


class Model(RuleBasedStateMachine):
    """The store against two dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = MemoryStore(TTL, ROOM, clock=lambda: self.now)
        self.leases: dict[str, tuple[bytes, Lease]] = {}
        self.results: dict[str, Result] = {}

    def expected(self, key: str, fingerprint: bytes) -> Claim | Reason | None:
        result = self.results.get(key)
        known = self.leases[key][0] if key in self.leases else result.fingerprint if result else None
        if known is not None and known != fingerprint:
            return Reason.REQUEST_ID_REUSED
        return Finished(result.data) if result else None

    async def answer(self, key: str, fingerprint: bytes) -> Claim | Reason:
        try:
            return await self.store.claim(key, fingerprint)
        except Refused as refused:
            return refused.reason

    @rule(key=KEYS, fingerprint=FINGERPRINTS)
    def claim(self, key: str, fingerprint: bytes) -> None:
        expected = self.expected(key, fingerprint)
        claim = asyncio.run(self.answer(key, fingerprint))
        if expected:
            assert claim == expected
        elif key in self.leases:
            assert isinstance(claim, Following)
        else:
            assert isinstance(claim, Leading)
            self.leases[key] = fingerprint, claim.lease

    @rule(key=KEYS, size=st.sampled_from([0, 100, 1500, 6000]), keep=st.booleans())
    def complete(self, key: str, size: int, keep: bool) -> None:
        if key in self.leases:
            fingerprint, lease = self.leases.pop(key)
            asyncio.run(lease.complete(Outcome(bytes(size), keep)))
            if keep and size < ROOM:
                self.results[key] = Result(fingerprint, bytes(size), self.now + TTL)
                # Oldest out first: what is left is an end of what came.
                kept = [key for key in self.results if key in self.store._results]
                assert kept == list(self.results)[len(self.results) - len(kept) :]
                assert key in kept
                self.results = {key: self.results[key] for key in kept}

    @rule(key=KEYS, fails=st.booleans())
    def give_up(self, key: str, fails: bool) -> None:
        if key in self.leases:
            lease = self.leases.pop(key)[1]
            asyncio.run(lease.fail() if fails else lease.release())

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.results = {key: result for key, result in self.results.items() if self.now < result.expires}

    @invariant()
    def counted(self) -> None:
        assert self.store.size == sum(result.size for result in self.store._results.values()) <= ROOM


TestModel = Model.TestCase


async def test_the_oldest_make_room() -> None:
    store = MemoryStore(max_bytes=10_000)
    for number in range(100):
        await led(store, str(number), bytes(1000))
    assert store.size <= 10_000
    assert "99" in store
    assert "0" not in store
    assert len(store) == 10_000 // (1000 + ENTRY_BYTES + 200)


async def test_expired_results_leave_without_being_asked_for() -> None:
    now = 0.0
    store = MemoryStore(10, clock=lambda: now)
    for number in range(1000):
        await led(store, str(number))
    now = 11
    for number in range(200):
        await led(store, f"new {number}")
    assert len(store) == 200


async def test_the_count_is_what_the_memory_really_holds() -> None:
    store = MemoryStore()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(5000):
            await led(store, f"{number:064}", bytes(100))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The fingerprint is one and the same object here.
    assert 0.7 * held < store.size < 1.5 * held


class Switch:
    """A shared store that can be taken away."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.up = True
        self.asked = 0
        # What it can answer for though it was taken away.
        self.known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.known

    @property
    def state(self) -> StoreState:
        return StoreState.SHARED if self.up else StoreState.FALLBACK

    async def claim(self, key: str, fingerprint: bytes, waited: str = "") -> Claim:
        if key in self.known:
            return Finished(b"known")
        self.asked += 1
        if not self.up:
            raise Refused(Reason.REPLAY_STORE_UNAVAILABLE, "Gone.")
        return await self.store.claim(key, fingerprint, waited)


async def test_the_process_remembers_for_itself_while_the_shared_store_is_away() -> None:
    now = 0.0
    shared, local = Switch(), MemoryStore()
    store = LocalFallback(shared, local, clock=lambda: now)
    assert isinstance(await store.claim("shared", b"f"), Leading)
    with pytest.raises(Refused):
        await store.claim("shared", b"g")
    assert not store.falls_back

    shared.up = False
    claim = await store.claim("local", b"f")
    assert isinstance(claim, Leading)
    assert isinstance(await store.claim("local", b"f"), Following)
    assert isinstance(await store.claim("another", b"f"), Leading)
    shared.known.add("ended")
    assert await store.claim("ended", b"f") == Finished(b"known")
    assert shared.asked == 3
    assert store.falls_back

    shared.up = True
    now = PAUSE
    await claim.lease.complete(Outcome(b"data", keep=True))
    assert await store.claim("local", b"f") == Finished(b"data")
    assert isinstance(await store.claim("shared", b"f"), Following)
