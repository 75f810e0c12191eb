"""Replicas die while callers repeat their calls: nothing is lost, and what was stored is paid for once."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from calls import TEMPLATE
from conftest import SLOW
from replicas.replica import PATIENCE, Replicas, replicas

from agenta_ai import CallFailed, Client
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from redis_server import RedisServer
    from replicas.replica import Replicas

    from agenta_ai_server.standin.app import Received

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.timeout(180)]

CALLERS, IDS, CLIENTS, KILLS = (1_000, 100, 20, 3) if SLOW else (200, 40, 10, 2)
# What is bought is stored within this time, also on a machine that is busy with other tests.
STORED = 1.0


class Run:
    """One request that was paid for.

    Attributes:
        ended: When it was answered; never, if the replica that sent it had died.
        lost: Whether the replica died before it could store the answer.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.ended = math.inf

    @property
    def lost(self) -> bool:
        return self.ended > self._sender.killed - STORED


class Sender:
    """A replica, and a stand-in of its own that tells who sent what."""

    def __init__(self, runs: dict[str, list[Run]]) -> None:
        self._runs = runs
        self.standin = StandIn(respond=self._respond)
        self.killed = math.inf

    async def start(self, made: Replicas, address: str = "127.0.0.1:0") -> None:
        await self.standin.start()
        self.replica = await made.make(AGENTA_AI_SERVICES_API_URL=self.standin.url, AGENTA_AI_GRPC_LISTEN=address)

    def kill(self) -> None:
        self.killed = time.monotonic()
        self.replica.signal(signal.SIGKILL)

    async def _respond(self, received: Received) -> None:
        run = Run(self)
        # The callers say in the context which id it is for: that goes to Agenta as it is.
        self._runs[json.loads(received.body)["inputs"]["__ag_context"]].append(run)
        await asyncio.sleep(random.uniform(0.2, 3))
        run.ended = time.monotonic()


async def busiest(senders: list[Sender]) -> Sender:
    """Wait until one of them has some runs under way, and return the one with most."""
    async with asyncio.timeout(PATIENCE):
        while not any(sender.standin.in_flight for sender in senders):  # noqa: ASYNC110  # no event spans stand-ins
            await asyncio.sleep(0.02)
    return max(senders, key=lambda sender: sender.standin.in_flight)


async def result_of(client: Client, request_id: str) -> str:
    """Repeat the call until it succeeds, and tell which run the result is from."""
    while True:
        try:
            return (await client.refine_prompt(TEMPLATE, context=request_id, request_id=request_id)).trace_id
        except CallFailed as failure:
            if failure.code is not grpc.StatusCode.UNAVAILABLE:
                raise


@pytest.mark.usefixtures("own_connections")
async def test_what_did_not_die_with_its_replica_is_paid_for_once(standin: StandIn, redis: RedisServer) -> None:
    runs: dict[str, list[Run]] = defaultdict(list)
    ids = [str(uuid4()) for _ in range(IDS)]
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(replicas(standin, AGENTA_AI_GRPC_REDIS_URL=redis.url))
        senders = [Sender(runs) for _ in range(4 + KILLS)]
        firsts, successors = senders[:4], senders[4:]
        for sender in senders:
            stack.push_async_callback(sender.standin.stop)
        await asyncio.gather(*(sender.start(made) for sender in firsts))
        target = f"ipv4:{','.join(sender.replica.address for sender in firsts)}"
        clients = [await stack.enter_async_context(Client(target)) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            callers = [
                group.create_task(result_of(clients[number % CLIENTS], ids[number % IDS])) for number in range(CALLERS)
            ]
            for successor in successors:
                await asyncio.sleep(0.5)
                victim = await busiest(firsts)
                firsts.remove(victim)
                victim.kill()
                group.create_task(successor.start(made, victim.replica.address))
    results = defaultdict(set)
    for number, caller in enumerate(callers):
        results[ids[number % IDS]].add(caller.result())
    assert {len(each) for each in results.values()} == {1}
    assert all(run.lost for of_id in runs.values() for run in of_id[:-1])
    assert sum(sender.standin.started for sender in senders) == sum(map(len, runs.values()))
    # Some died and some didn't, or nothing would have been shown.
    assert {len(of_id) for of_id in runs.values()} == {1, 2}
