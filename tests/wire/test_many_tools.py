"""Status with many tools must neither flood Redis nor hold up others."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from concurrency.virtual_time import virtual_time

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.auth.policy import AccessPolicy
from agenta_ai_server.domain.call import ANONYMOUS, Call
from agenta_ai_server.domain.server_state import ServerState
from agenta_ai_server.domain.tool import ToolSet, ToolSpec
from agenta_ai_server.limits.limits import RateLimits
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.rpc.handler import CallHandler, Request
from agenta_ai_server.rpc.servicer import MAX_STATUS_CALLERS, TOOLS_AT_ONCE, ToolServicer
from agenta_ai_server.rpc.tool_calls import ToolCalls
from agenta_ai_server.tools.catalog import Catalog

if TYPE_CHECKING:
    import grpc

    from agenta_ai_server.limits.limiter import Decision, Limit

TOOLS = 2 * TOOLS_AT_ONCE + 5


class SlowLimiter(MemoryLimiter):
    """Takes a while, as one in Redis does."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = self.peeks = 0

    async def peek(self, key: str, limit: Limit) -> Decision:
        self.peeks += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.1)
        self.running -= 1
        return await super().peek(key, limit)


async def never(*_: object) -> Any:
    raise AssertionError


def status_method(limiter: SlowLimiter) -> CallHandler:
    tools = ToolSet([ToolSpec(f"tools.a.b.t{number}", "", "", "view", {}, {}, never) for number in range(TOOLS)])
    catalog = Catalog(tools)
    calls = ToolCalls(catalog, max_seconds=60)
    servicer = ToolServicer(ServerState("1"), catalog, AccessPolicy(), calls, RateLimits(None, limiter))
    details = cast("grpc.HandlerCallDetails", type("Details", (), {"method": "/agenta.ai.v1.ToolService/Status"}))
    method = servicer.handlers().service(details)
    assert isinstance(method, CallHandler)
    return method


@pytest.mark.parametrize(
    ("users", "most"),
    [(["one"] * 10, TOOLS_AT_ONCE), ([f"user {number}" for number in range(10)], MAX_STATUS_CALLERS * TOOLS_AT_ONCE)],
    ids=["one caller", "many"],
)
@virtual_time
async def test_status_asks_the_limiter_for_some_tools_at_a_time(users: list[str], most: int) -> None:
    limiter = SlowLimiter()
    method = status_method(limiter)

    async def empty() -> bytes:
        return b""

    async def status(user: str) -> tool_service_pb2.StatusResponse:
        caller = replace(ANONYMOUS, user=user)
        call = Call(id="0" * 32, method="/agenta.ai.v1.ToolService/Status", metadata=(), peer="test", principal=caller)
        response = await method.respond(Request(empty, call), call)
        return tool_service_pb2.StatusResponse.FromString(response.message)

    answers = await asyncio.gather(*(status(user) for user in users))
    names = Counter(tool.tool.name for answer in answers for tool in answer.tools)
    assert (len(names), set(names.values())) == (TOOLS, {len(users)})
    assert (limiter.most, limiter.peeks) == (most, TOOLS * len(users))
