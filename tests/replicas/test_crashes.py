"""Processes are killed and frozen at random moments: no id is billed twice, and each caller learns how it ended."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from calls import TEMPLATE
from conftest import SLOW
from redis_server import RedisServer
from replicas.replica import Replicas, replicas

from agenta_ai import CallFailed, Client, ToolFailed
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicas.replica import Replica

    from agenta_ai_server.standin.received import Received

pytestmark = pytest.mark.timeout(1800 if SLOW else 180)

IDS, CALLERS = (10_000, 64) if SLOW else (150, 24)
LEASE = 1.5
TIMEOUT = 20
# So that a run is found dead, and a frozen process outlasts its lease, in a test that ends soon.
SHORT_LEASES = f"""
from agenta_ai_server.idempotency import redis, sqlite, store
for ledger in (redis.RedisLedger, sqlite.SqliteLedger, store.LedgerStore):
    ledger.__init__.__kwdefaults__["lease"] = {LEASE}
"""
# Ends the growth of every file, as a full disk does.
SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Model:
    """Is Agenta, and counts what it bills by the id that callers say in the context."""

    def __init__(self) -> None:
        self.billed: Counter[str] = Counter()
        self.standin = StandIn(respond=self._respond, keep=1)

    async def _respond(self, received: Received) -> None:
        self.billed[received.inputs["__ag_context"]] += 1
        await asyncio.sleep(random.uniform(0.02, 0.5))


class Callers:
    """Callers of the shipped client that repeat a call, with the same id, until they know how it ended."""

    def __init__(self, replicas: list[Replica], ids: int, *, timeout: float = TIMEOUT, attempts: int = 10) -> None:
        self.outcomes: Counter[str] = Counter()
        self._target = f"ipv4:{','.join(replica.address for replica in replicas)}"
        self._left = ids
        self._timeout = timeout
        self._attempts = attempts

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call_in_turn())

    async def _call_in_turn(self) -> None:
        async with Client(self._target, timeout=self._timeout) as client:
            while self._left > 0:
                self._left -= 1
                self.outcomes[await self._outcome(client, str(uuid4()))] += 1

    async def _outcome(self, client: Client, request_id: str) -> str:
        for _ in range(self._attempts):
            began = time.monotonic()
            try:
                await client.refine_prompt(TEMPLATE, context=request_id, request_id=request_id)
            except ToolFailed as failure:
                if not failure.retryable:
                    return failure.reason
            except CallFailed as failure:
                if failure.code not in RETRIED:
                    return f"{failure.code.name} {failure.reason}"
            else:
                return "result"
            finally:
                assert time.monotonic() - began < self._timeout + 5
        return "unfinished"


async def trouble(made: Replicas, all_replicas: list[Replica], deaths: list[Replica]) -> None:
    """Kill or freeze one of the processes after the other, and note those killed."""
    while True:
        await asyncio.sleep(random.uniform(0.2, 1.2))
        place = random.randrange(len(all_replicas))
        victim = all_replicas[place]
        if random.random() < 0.7:
            victim.signal(signal.SIGKILL)
            await victim.ended()
            deaths.append(victim)
            all_replicas[place] = await made.make(AGENTA_AI_GRPC_LISTEN=victim.address)
        else:
            victim.signal(signal.SIGSTOP)
            await asyncio.sleep(1.5 * LEASE)
            victim.signal(signal.SIGCONT)


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    async with model.standin:
        yield model


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The settings of what remembers."""
    if request.param == "sqlite":
        yield {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db")}
        return
    server = RedisServer(tmp_path, "--appendonly", "yes")
    await asyncio.to_thread(server.start)
    yield {"AGENTA_AI_GRPC_REDIS_URL": server.url}
    server.kill()


@pytest.mark.usefixtures("own_connections")
async def test_no_id_is_billed_twice_while_processes_die_and_freeze(model: Model, store: dict[str, str]) -> None:
    async with replicas(model.standin, prelude=SHORT_LEASES, **store) as made:
        both = await made.each_on_its_port(2)
        callers = Callers(both, IDS)
        deaths: list[Replica] = []
        troubling = asyncio.create_task(trouble(made, both, deaths))
        await callers.run()
        troubling.cancel()
        await asyncio.wait([troubling])
    assert max(model.billed.values()) == 1
    assert callers.outcomes.total() == IDS
    assert set(callers.outcomes) <= {"result", "OUTCOME_UNKNOWN"}, callers.outcomes
    # Most succeeded, and processes died, or nothing would have been shown.
    assert callers.outcomes["result"] > IDS / 2
    assert deaths


@pytest.mark.usefixtures("own_connections")
async def test_no_id_is_billed_twice_while_the_disk_is_full(model: Model, tmp_path: Path) -> None:
    file = {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db")}
    async with replicas(model.standin, prelude=SMALL_FILES, **file) as made:
        both = await made.each_on_its_port(2)
        callers = Callers(both, 100, timeout=3, attempts=1)
        await callers.run()
    assert max(model.billed.values()) == 1
    assert set(callers.outcomes) <= {"result", "OUTCOME_UNKNOWN", "unfinished"}, callers.outcomes
    assert callers.outcomes["result"] > 0
    assert callers.outcomes["unfinished"] > 0
