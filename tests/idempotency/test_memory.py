"""The ledger in memory: in how many bytes it remembers what."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from agenta_ai_server.idempotency.ledger import Claimed, Ending, EndKind, Finished, LedgerFailed, Lost, Run
from agenta_ai_server.idempotency.memory import MAX_IDS, MAX_RESULT_BYTES, MemoryLedger


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def finish(ledger: MemoryLedger, key: str, data: bytes | None) -> None:
    run = Run(key, b"f", "token")
    assert await ledger.claim(run) == Claimed()
    await ledger.end(run, Ending(EndKind.KEPT, data))


def a_run(key: str) -> Run:
    return Run(key, b"f", "repeat")


async def test_the_oldest_outcomes_make_room_and_their_ids_stay_known() -> None:
    ledger = MemoryLedger(max_bytes=1000)
    for number in range(5):
        await finish(ledger, str(number), bytes(300))
    answers = [await ledger.claim(a_run(str(number))) for number in range(5)]
    assert answers == [Lost(), Lost(), *[Finished(bytes(300))] * 3]


async def test_one_outcome_that_is_larger_than_all_may_be_is_dropped() -> None:
    ledger = MemoryLedger(max_bytes=1000)
    await finish(ledger, "a", bytes(1001))
    assert await ledger.claim(a_run("a")) == Lost()


async def test_too_many_ids_are_refused_rather_than_forgotten() -> None:
    clock = Clock()
    ledger = MemoryLedger(10, max_ids=3, clock=clock)
    for number in range(2):
        await finish(ledger, str(number), b"result")
    assert await ledger.claim(a_run("running")) == Claimed()
    with pytest.raises(LedgerFailed):
        await ledger.claim(a_run("new"))
    assert await ledger.claim(a_run("0")) == Finished(b"result")
    await ledger.end(a_run("running"), Ending(EndKind.RELEASED))
    assert await ledger.claim(a_run("new")) == Claimed()
    clock.now = 10
    assert await ledger.claim(a_run("newer")) == Claimed()


async def test_what_has_expired_is_taken_out_by_what_comes() -> None:
    clock = Clock()
    ledger = MemoryLedger(10, max_ids=1000, clock=clock)
    for number in range(1000):
        await finish(ledger, f"old {number}", b"result")
    clock.now = 10
    for number in range(1000):
        await finish(ledger, f"new {number}", b"result")


def test_it_takes_no_more_than_it_says() -> None:
    """An id takes about 500 bytes besides its outcome."""

    async def fill(ledger: MemoryLedger, count: int) -> None:
        for number in range(count):
            await finish(ledger, f"{number:032x}", bytes(1000))

    gc.collect()
    tracemalloc.start()
    ledger = MemoryLedger()
    asyncio.run(fill(ledger, 10_000))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = size / 10_000 - 1000
    assert 100 < each < 700
    assert MAX_IDS * each + MAX_RESULT_BYTES < 256 << 20
