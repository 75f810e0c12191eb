"""A replica in a process of its own: begins one run, says so, and never ends it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.redis import RedisStore
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool import Waiters


async def main(url: str, lease_seconds: float) -> None:
    async def work(_deadline: float, _callers: Waiters) -> ToolOutcome:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.sleep(3600)
        raise AssertionError

    store = RedisStore(RedisClient(url), lease_seconds=lease_seconds)
    await store.connect()
    await InFlightCalls(store, max_seconds=3600).run("id", b"f", work)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
