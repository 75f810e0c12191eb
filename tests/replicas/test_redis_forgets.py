"""A Redis that loses its data: what docs/architecture.md says can be billed twice then, and nothing else."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from calls import TEMPLATE
from replicas.model import SHORT_LEASES
from replicas.replica import PATIENCE, WAITS_FOR_REDIS, replicas

from agenta_ai import CallFailed, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_server import RedisServer
    from replicas.model import Model
    from replicas.replica import Replica

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.timeout(120)]


async def call(replica: Replica, name: str) -> bool:
    """Make the call of this name, which always has the same id, and return whether it got an earlier result."""
    request_id = str(UUID(int=random.Random(name).getrandbits(128), version=4))
    async with Client(replica.address, timeout=PATIENCE, retries=0) as client:
        refined = await client.refine_prompt(TEMPLATE, context=name, request_id=request_id)
        return refined.meta.replayed


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("own_connections")
async def test_what_can_be_billed_twice(model: Model, redis: RedisServer) -> None:
    prelude = SHORT_LEASES + WAITS_FOR_REDIS
    async with replicas(model.standin, prelude=prelude, AGENTA_AI_GRPC_REDIS_URL=redis.url) as made:
        running, frozen, dying, other = await made.each_on_its_port(4)
        await call(other, "ended before")
        assert await call(other, "ended before")
        model.answers.clear()
        calls = [
            asyncio.create_task(call(running, "goes on")),
            asyncio.create_task(call(frozen, "repeated before it is recorded again")),
            asyncio.create_task(call(dying, "its process died before")),
        ]
        await until(lambda: len(model.billed) == 4)
        dying.signal(signal.SIGKILL)
        with pytest.raises(CallFailed):
            await calls.pop()
        # A process records its runs again within a third of a lease, and this one can't.
        frozen.signal(signal.SIGSTOP)
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start)
        await until(lambda: redis.do("DBSIZE"))
        names = ["ended before", "repeated before it is recorded again", "its process died before", "goes on"]
        repeats = [asyncio.create_task(call(other, name)) for name in [*names, "came after"]]
        await until(lambda: model.billed["its process died before"] == 2 and model.billed["came after"])
        await until(lambda: model.billed["repeated before it is recorded again"] == 2)
        frozen.signal(signal.SIGCONT)
        model.answers.set()
        await asyncio.gather(*calls, *repeats)
        assert await call(other, "came after")
    assert model.billed == {
        "ended before": 2,
        "its process died before": 2,
        "repeated before it is recorded again": 2,
        "goes on": 1,
        "came after": 1,
    }
