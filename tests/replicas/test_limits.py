"""One limit over all replicas: exactly its number, however it is hammered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from calls import refine
from replicas.conftest import OWN_CONNECTIONS
from replicas.replica import WAITS_FOR_REDIS, replicas

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from redis_server import RedisServer

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

pytestmark = pytest.mark.needs("redis-server")

BURST = 50
CONNECTIONS = 48
CALLS = 1_000


async def code_of(stub: ToolServiceAsyncStub) -> grpc.StatusCode:
    try:
        await stub.CallTool(refine(), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_four_replicas_admit_what_the_policy_says(standin: StandIn, redis: RedisServer, tmp_path: Path) -> None:
    policy = tmp_path / "limits.toml"
    policy.write_text(f"burst = {BURST}\nper_minute = 1\n")
    settings = {
        "AGENTA_AI_GRPC_LIMITS": "on",
        "AGENTA_AI_GRPC_LIMITS_FILE": str(policy),
        "AGENTA_AI_GRPC_REDIS_URL": redis.url,
    }
    async with replicas(standin, prelude=WAITS_FOR_REDIS, **settings) as made, AsyncExitStack() as opened:
        four = await made.each_on_its_port(4)
        stubs = []
        for replica, _ in zip(itertools.cycle(four), range(CONNECTIONS), strict=False):
            channel = grpc.aio.insecure_channel(replica.address, [OWN_CONNECTIONS])
            stubs.append(ToolServiceStub(await opened.enter_async_context(channel)))
        began = time.monotonic()
        codes = Counter(await asyncio.gather(*(code_of(stubs[number % CONNECTIONS]) for number in range(CALLS))))
        left = [(await stub.Status(pb.StatusRequest())).tools[0].rate_limit for stub in stubs]
        came_back = int((time.monotonic() - began) // 60)
        assert not any(replica.said("store fails") for replica in four)
    assert came_back == 0, "too slow a machine to tell"
    assert codes == {grpc.StatusCode.OK: BURST, grpc.StatusCode.RESOURCE_EXHAUSTED: CALLS - BURST}
    assert standin.started == BURST
    assert {(limit.burst, limit.remaining) for limit in left} == {(BURST, 0)}
    assert all(0 < limit.next_call_delay.ToTimedelta().total_seconds() <= 60 for limit in left)
