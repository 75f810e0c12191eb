"""A process of its own that claims an id, begins it if it is told to, says so, and never ends it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.sqlite import SqliteLedger
from agenta_ai_server.idempotency.store import Leading, LedgerStore
from agenta_ai_server.redis.client import RedisClient


async def main(url: str, lease: float, state: str) -> None:
    is_redis = url.startswith("redis")
    ledger = RedisLedger(RedisClient(url), lease=lease) if is_redis else SqliteLedger(Path(url), lease=lease)
    store = LedgerStore(ledger, lease=lease)
    await store.start()
    claim = await store.claim("id", b"f")
    assert isinstance(claim, Leading)
    if state == "begun":
        await claim.lease.begin()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
