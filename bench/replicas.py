"""Rate limits and idempotency over a hundred replicas and one real Redis: are they exact, and what do they cost Redis?

The replicas are simulated: each has connections, a limiter and a store of its own, as a process of the service has.
Needs redis-server on the PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import uvloop
from bench.limits import redis_server
from bench.servers import RESULTS

from agenta_ai_server.domain.callers import Waiter
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.idempotency.in_flight import InFlightCalls, RunId
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.sealing import Plain
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agenta_ai_server.domain.callers import Callers

REPLICAS = 100
# What a replica has open before anything counts: as many as its calls that are made at once here.
CONNECTIONS = 4
# Nothing comes back while it is measured, so that exactly the burst is allowed.
LIMIT = Limit(burst=500, per_minute=0.01)
# Each request_id is sent to so many replicas at once.
REPEATS = 3
OUTCOME = ToolOutcome("Done.", structured={"text": "x" * 4000})
# A tool takes so long, so that its repeats come while it runs.
TOOL_SECONDS = 0.05
MARK = b"f" * 16


class Replica:
    """What one process of the service has of Redis.

    Args:
        url: Of Redis.
    """

    def __init__(self, url: str) -> None:
        # All replicas share one event loop here, and wait for each other.
        self.client = RedisClient(url, timeout=30)
        self.limiter = RedisLimiter(self.client)
        self.store = LedgerStore(RedisLedger(self.client), sealing=Plain())
        self.calls = InFlightCalls(self.store)
        self.runs = 0

    async def start(self, stack: AsyncExitStack) -> Replica:
        await self.store.start()
        await asyncio.gather(*(self.limiter.connect() for _ in range(CONNECTIONS)))
        for close in (self.client.aclose, self.store.aclose, self.calls.aclose):
            stack.push_async_callback(close)
        return self

    async def call(self, key: str) -> None:
        """Make one call with a request_id."""
        await self.calls.run(RunId(key, MARK), self._run, Waiter())

    async def _run(self, _: Callers, begin: Callable[[], Awaitable[None]]) -> ToolOutcome:
        await begin()
        self.runs += 1
        await asyncio.sleep(TOOL_SECONDS)
        return OUTCOME


class Cost:
    """What Redis has done between two looks.

    Args:
        client: Asks it.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def __aenter__(self) -> Cost:
        self._before, self._began = await self._look(), time.perf_counter()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        after = await self._look()
        self.operations, self.cpu_seconds = (new - old for new, old in zip(after, self._before, strict=True))

    async def _look(self) -> tuple[float, float]:
        # "everything" would be one command more; both sections are small.
        text = (await self._client.command("INFO", "commandstats")) + await self._client.command("INFO", "cpu")
        values = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        scripts = values.get("cmdstat_evalsha", "calls=0,")
        calls = float(scripts.partition("calls=")[2].partition(",")[0])
        return calls, float(values["used_cpu_user"]) + float(values["used_cpu_sys"])

    def row(self, calls: int) -> dict[str, float]:
        return {
            "calls": calls,
            "operations": self.operations / calls,
            "redis_us": self.cpu_seconds / self.operations * 1e6,
            "per_second": calls / self.seconds,
        }


async def at_once(works: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await them, a few for each replica at a time."""
    slots = asyncio.Semaphore(CONNECTIONS * REPLICAS)

    async def one(work: Awaitable[Any]) -> Any:
        async with slots:
            return await work

    return await asyncio.gather(*(one(work) for work in works))


async def limits(replicas: list[Replica], calls: int, cost: Cost) -> dict[str, float]:
    """One caller's calls at all replicas: as many are allowed as the limit has, and none more."""
    async with cost:
        decisions = await at_once([random.choice(replicas).limiter.take("caller", LIMIT) for _ in range(calls)])
    return {**cost.row(calls), "allowed": sum(decision.allowed for decision in decisions), "burst": LIMIT.burst}


async def ids(replicas: list[Replica], count: int, cost: Cost) -> dict[str, float]:
    """Each id at several replicas at once: it runs once."""
    keys = [uuid4().hex for _ in range(count)]
    works = [replica.call(key) for key in keys for replica in random.sample(replicas, REPEATS)]
    random.shuffle(works)
    async with cost:
        await at_once(works)
    return {**cost.row(len(works)), "ids": count, "runs": sum(replica.runs for replica in replicas)}


async def lone(replicas: list[Replica], count: int, cost: Cost) -> dict[str, float]:
    """Calls that nobody repeats: a check of the limit, and the three steps of an id."""

    async def call(replica: Replica) -> None:
        await replica.limiter.take(uuid4().hex, LIMIT)
        await replica.call(uuid4().hex)

    async with cost:
        await at_once([call(random.choice(replicas)) for _ in range(count)])
    return cost.row(count)


async def main(count: int) -> None:
    async with AsyncExitStack() as stack:
        url, _ = stack.enter_context(redis_server())
        replicas = [await Replica(url).start(stack) for _ in range(REPLICAS)]
        cost = Cost(replicas[0].client)
        results = {
            "replicas": REPLICAS,
            "limits": await limits(replicas, count, cost),
            "ids": await ids(replicas, count // REPEATS, cost),
            "lone": await lone(replicas, count, cost),
        }
    (RESULTS / "replicas.json").write_text(
        json.dumps(results, indent=1, default=lambda number: round(number, 4)) + "\n"
    )
    print(json.dumps(results, indent=1))
    if results["limits"]["allowed"] != LIMIT.burst or results["ids"]["runs"] != results["ids"]["ids"]:  # type: ignore[index]
        sys.exit("A limit or a request_id wasn't kept across the replicas.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=6000, help="calls of each kind")
    uvloop.run(main(parser.parse_args().count))
