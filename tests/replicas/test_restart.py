"""A deploy that nobody notices: replicas are replaced one after the other, under load of the shipped client."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from calls import TEMPLATE
from conftest import SLOW
from grpc_health.v1 import health_pb2, health_pb2_grpc
from replicas.replica import Replica, Replicas, replicas

from agenta_ai import AgentaError, Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis_server import RedisServer

    from agenta_ai_server.standin.app import StandIn

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.timeout(120)]

COUNT = 4
CALLS_A_SECOND = 200 if SLOW else 60
CLIENTS = 16
# Some times as many as there are at this rate if no call waits.
IN_FLIGHT = CALLS_A_SECOND
# As a model that is quick: some calls run in each replica when it is told to stop.
GUIDELINES = "standin: delay=0.3"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Load:
    """Calls at a steady rate by clients in turn, whether or not the earlier ones have ended.

    On a machine that is too slow for this rate, they wait in line here: there, they would wait until they fail.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self.clients = [Client(target, timeout=30) for target in itertools.islice(itertools.cycle(targets), CLIENTS)]
        self.places = asyncio.Semaphore(IN_FLIGHT)
        self.done = 0
        self.failures: list[str] = []
        self.slowest = 0.0

    async def run(self, during: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(group))
            await during()
            sending.cancel()
        for client in self.clients:
            await client.close()

    async def _send(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, client in enumerate(itertools.cycle(self.clients)):
            await asyncio.sleep(began + number / CALLS_A_SECOND - loop.time())
            await self.places.acquire()
            group.create_task(self._call(client))

    async def _call(self, client: Client) -> None:
        began = time.monotonic()
        try:
            await client.refine_prompt(TEMPLATE, guidelines=GUIDELINES)
        except AgentaError as error:
            self.failures.append(f"after {time.monotonic() - began:.2f} s: {error}")
        self.places.release()
        self.done += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


async def replace(made: Replicas, old: Replica) -> None:
    old.signal(signal.SIGTERM)
    assert await old.ended() == 0, old.log
    await made.make("--reuse-port", AGENTA_AI_GRPC_LISTEN=old.address)


@pytest.mark.usefixtures("own_connections")
@pytest.mark.parametrize("ports", [1, COUNT] if SLOW else [1])
async def test_no_call_fails_while_replicas_are_replaced(ports: int, standin: StandIn, redis: RedisServer) -> None:
    async with replicas(standin, AGENTA_AI_GRPC_REDIS_URL=redis.url) as made:
        olds = await (made.on_one_port(COUNT) if ports == 1 else made.each_on_its_port(COUNT))
        addresses = sorted({replica.address for replica in olds})
        load = Load([f"ipv4:{','.join(addresses)}"])

        async def restart() -> None:
            for old in olds:
                await replace(made, old)

        await load.run(restart)
    assert load.failures == []
    assert standin.started == load.done


async def test_a_stop_drops_calls_and_the_client_sends_them_elsewhere(standin: StandIn) -> None:
    async with replicas(standin, AGENTA_AI_GRPC_DRAIN_SECONDS="0") as made:
        stopping, staying = await made.each_on_its_port(2)
        async with Client(f"ipv4:{stopping.address},{staying.address}") as client:
            await client.refine_prompt(TEMPLATE)
            calls = [asyncio.create_task(client.refine_prompt(TEMPLATE, guidelines=GUIDELINES)) for _ in range(150)]
            await standin.when(lambda: standin.started > 20)
            stopping.signal(signal.SIGTERM)
            await asyncio.gather(*calls)
        assert await stopping.ended() == 0
    # What was dropped had not been begun, so it is paid for once without a Redis too.
    assert standin.started == 1 + len(calls)


async def test_who_has_no_elsewhere_is_served_through_the_drain(standin: StandIn) -> None:
    async with replicas(standin, AGENTA_AI_GRPC_DRAIN_SECONDS="6") as made:
        replica = await made.make()
        async with Client(replica.address) as client, grpc.aio.insecure_channel(replica.address) as channel:
            await client.refine_prompt(TEMPLATE)
            replica.signal(signal.SIGTERM)
            await replica.says("stopping")
            # Balancers are told at once, and the client's own watch is not.
            health = cast("Any", health_pb2_grpc.HealthStub(channel))
            while (
                await health.Check(health_pb2.HealthCheckRequest())
            ).status == health_pb2.HealthCheckResponse.SERVING:
                pass
            for _ in range(30):
                await client.refine_prompt(TEMPLATE)
        assert replica.process.returncode is None
        assert await replica.ended() == 0


@pytest.mark.usefixtures("own_connections")
async def test_a_listener_that_closes_drops_connections_and_no_call_fails(standin: StandIn) -> None:
    async with replicas(standin) as made:
        replica = await made.make("--reuse-port")
        host, _, port = replica.address.rpartition(":")
        # As a replica that stops: the kernel has given it connections, which it accepts no more.
        with socket.socket(socket.AF_INET6) as stopping:
            stopping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # The kernel shares a port among sockets of one family, and grpc's are of this one.
            stopping.bind((f"::ffff:{host}", int(port)))
            stopping.listen(CLIENTS)
            clients = [Client(replica.address) for _ in range(CLIENTS)]
            calls = [asyncio.create_task(client.status()) for client in clients]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*calls)
        for client in clients:
            await client.close()
