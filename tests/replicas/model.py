"""A model that counts what it bills, and leases that run out in a test that ends soon."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from agenta_ai_server.standin.received import Received

LEASE = 1.5
# So that a run is found dead soon, and a frozen process outlasts its lease. For a replica's prelude.
SHORT_LEASES = f"""
from agenta_ai_server.idempotency import redis, sqlite, store
for ledger in (redis.RedisLedger, sqlite.SqliteLedger, store.LedgerStore):
    ledger.__init__.__kwdefaults__["lease"] = {LEASE}
"""


class Model:
    """Is Agenta, and counts what it bills by the id that callers say in the context.

    Attributes:
        billed: How often it has billed each id.
        standin: Where it is.
        answers: Whether it answers; otherwise it goes on thinking.
    """

    def __init__(self) -> None:
        self.billed: Counter[str] = Counter()
        self.standin = StandIn(respond=self._respond, keep=1)
        self.answers = asyncio.Event()
        self.answers.set()

    async def _respond(self, received: Received) -> None:
        self.billed[received.inputs["__ag_context"]] += 1
        await asyncio.sleep(random.uniform(0.02, 0.5))
        await self.answers.wait()
