"""What remembering a request_id costs a call: in memory, in a file, on Redis; and what the event loop waits for it.

Needs redis-server on the PATH. Nothing of it is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from bench.limits import redis_server

from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.sqlite import SqliteLedger
from agenta_ai_server.idempotency.store import Leading, LedgerStore
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from agenta_ai_server.idempotency.ledger import Ledger

# As a refinement of a long prompt.
OUTCOME = os.urandom(4000)


async def call(store: LedgerStore, key: str) -> None:
    claim = await store.claim(key, b"f" * 16)
    assert isinstance(claim, Leading)
    await claim.lease.begin()
    await claim.lease.complete(OUTCOME, keep=True)


async def slowest_turn(ended: asyncio.Event) -> float:
    """Return the longest that the event loop took to come round, in seconds."""
    slowest = 0.0
    while not ended.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0)
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


async def measure(name: str, ledger: Ledger, count: int, at_once: int) -> None:
    store = LedgerStore(ledger)
    await store.start()

    async def calls(worker: int) -> None:
        for number in range(count // at_once):
            await call(store, f"{at_once} {worker} {number}")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(calls(worker) for worker in range(at_once)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    ended = asyncio.Event()
    turning = asyncio.create_task(slowest_turn(ended))
    await asyncio.gather(*(call(store, f"turn {at_once} {number}") for number in range(at_once)))
    ended.set()
    await store.aclose()
    print(
        f"{name:<24}{at_once:>4} at once: {cpu / count * 1e6:6.0f} µs of CPU, {wall / count * 1e6:6.0f} µs a call; "
        f"slowest turn of the event loop {await turning * 1e3:.1f} ms"
    )


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server() as (url, _):
        client = RedisClient(url)
        for at_once in (1, 32, 200):
            await measure("memory", MemoryLedger(), count, at_once)
            await measure("file", SqliteLedger(Path(folder) / "ids.db"), count, at_once)
            await measure("file, durable", SqliteLedger(Path(folder) / "d.db", durable=True), count // 5, at_once)
            await measure("Redis", RedisLedger(client), count, at_once)
        await client.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="calls of each kind")
    uvloop.run(main(parser.parse_args().count))
