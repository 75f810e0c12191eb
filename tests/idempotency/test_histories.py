"""Random histories of two processes: an id is billed at most once, and a file and Redis agree on every answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import pytest
from conftest import SLOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idempotency.test_ledgers import ByClock, ByRedis

from agenta_ai_server.idempotency import sqlite
from agenta_ai_server.idempotency.ledger import Claimed, Ending, EndKind, Following, Hold, Run
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.sqlite import SqliteLedger
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from redis_server import RedisServer

    from agenta_ai_server.idempotency.ledger import Ledger

TTL, LEASE = 3000.0, 1000.0
# No sum of these comes near a moment at which something expires, since Redis also counts what the test itself takes.
UNIT = 170

Step: TypeAlias = tuple[str, int, str, int]

# Weighted, so that most histories get somewhere: claim, begin, die or end, pass a lease or more, claim again.
KINDS = [*5 * ["claim"], "rerun", *5 * ["begin"], "renew", "kept", "kept unstored", "passed on", "released"]
KINDS += ["abandoned", *2 * ["die"], *3 * ["time"]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.integers(0, 1), st.sampled_from("xxxy"), st.sampled_from([1, 4, 7, 7, 20, 25])
    ),
    min_size=20,
    max_size=60,
)
ENDINGS = {
    "kept": Ending(EndKind.KEPT, b"result"),
    "kept unstored": Ending(EndKind.KEPT),
    "passed on": Ending(EndKind.PASSED_ON, b"failure"),
    "released": Ending(EndKind.RELEASED),
    "abandoned": Ending(EndKind.ABANDONED),
}


@dataclass
class Billing:
    """What was billed for one id, as the callers see it.

    Attributes:
        runs: Until when each run that may have been billed is to be remembered.
        agreed: The runs whose callers agreed to be billed again.
    """

    runs: dict[str, float] = field(default_factory=dict)
    agreed: set[str] = field(default_factory=set)

    def begin(self, token: str, now: float) -> None:
        others = [other for other, until in self.runs.items() if other != token and now < until]
        assert token in self.agreed or not others, "billed twice"
        self.runs[token] = now + LEASE + TTL


class History:
    """Plays steps on the ledgers of two processes that share one thing, and collects the answers."""

    def __init__(self, ledgers: list[Ledger], world: ByClock | ByRedis) -> None:
        self.ledgers = ledgers
        self.world = world
        self.now = 0.0
        self.tokens = count()
        self.running: dict[tuple[int, str], Run] = {}
        self.waited: dict[tuple[int, str], str] = {}
        self.billing = {key: Billing() for key in "xy"}
        self.answers: list[object] = []

    async def play(self, steps: list[Step]) -> list[object]:
        for kind, process, key, units in steps:
            run = self.running.get((process, key))
            if kind == "time":
                self.now += units * UNIT
                await self.world.pass_seconds(units * UNIT)
            elif kind == "die":
                self.running = {place: run for place, run in self.running.items() if place[0] != process}
            elif kind in ("claim", "rerun") and run is None:
                await self._claim(process, key, rerun=kind == "rerun")
            elif kind in ("begin", "renew") and run:
                await self._hold(process, run, begun=kind == "begin")
            elif kind in ENDINGS and run:
                await self._end(process, run, ENDINGS[kind])
        return self.answers

    async def _claim(self, process: int, key: str, *, rerun: bool) -> None:
        run = Run(key, b"f", str(next(self.tokens)))
        waited = self.waited.pop((process, key), "")
        answer = await self.ledgers[process].claim(run, waited=waited, rerun=rerun)
        self.answers.append(answer)
        if isinstance(answer, Claimed):
            self.running[process, key] = run
            if rerun:
                self.billing[key].agreed.add(run.token)
        elif isinstance(answer, Following):
            self.waited[process, key] = answer.token

    async def _hold(self, process: int, run: Run, *, begun: bool) -> None:
        billing = self.billing[run.key]
        begun = begun or run.token in billing.runs
        [is_held] = await self.ledgers[process].hold([Hold(run, begun)])
        self.answers.append(is_held)
        if is_held and begun:
            billing.begin(run.token, self.now)
        elif not is_held and run.token not in billing.runs:
            del self.running[process, run.key]

    async def _end(self, process: int, run: Run, ending: Ending) -> None:
        billing = self.billing[run.key]
        await self.ledgers[process].end(run, ending)
        if ending.kind in (EndKind.RELEASED, EndKind.PASSED_ON):
            billing.runs.pop(run.token, None)
        elif self.now < billing.runs.get(run.token, 0):
            # One that was forgotten, because nobody renewed it for so long, isn't remembered by its end.
            billing.runs[run.token] = self.now + TTL
        del self.running[process, run.key]


async def play_on_file(folder: str, steps: list[Step]) -> list[object]:
    world = ByClock(TTL, Path(folder) / "ids.db")
    two: list[Ledger] = [
        SqliteLedger(Path(folder) / "ids.db", TTL, lease=LEASE, clock=lambda: world.now) for _ in range(2)
    ]
    async with AsyncExitStack() as stack:
        # Of a busy disk this test has nothing to say.
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(sqlite, "TIMEOUT_SECONDS", 60)
        for ledger in two:
            await ledger.open()
            stack.push_async_callback(ledger.aclose)
        return await History(two, world).play(steps)


async def play_on_redis(server: RedisServer, steps: list[Step]) -> list[object]:
    server.do("FLUSHALL")
    clients = [RedisClient(server.url, timeout=60) for _ in range(2)]
    two: list[Ledger] = [RedisLedger(client, TTL, lease=LEASE) for client in clients]
    try:
        return await History(two, ByRedis(two[0], server)).play(steps)
    finally:
        for client in clients:
            await client.aclose()


@pytest.mark.needs("redis-server")
@pytest.mark.timeout(0)
@settings(max_examples=1000 if SLOW else 60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_an_id_is_billed_at_most_once_unless_its_caller_agrees(redis: RedisServer, steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        on_file = asyncio.run(play_on_file(folder, steps))
    assert asyncio.run(play_on_redis(redis, steps)) == on_file
