"""What the fault suite runs against: the real server, the proxy, the stand-in; and what they must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import psutil
from calls import refine, streamed
from conftest import connected, settings_for

from agenta_ai.v1.tool_service_pb2 import SERVICE_STATE_DEGRADED, StatusRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from faults.proxy import Proxy

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

# grpc ends a call at its deadline; the rest is what a busy machine takes to say so. On a calm one calls end before it.
LATE = 2.0

RETRIES = "AGENTA_AI_GRPC_RETRIES"
RETRY_UNSAFE = "AGENTA_AI_GRPC_RETRY_UNSAFE"
BREAKER = "AGENTA_AI_GRPC_BREAKER"
KEEPALIVE = "AGENTA_AI_GRPC_UPSTREAM_KEEPALIVE"
# Bounds a request to Agenta, as the caller's deadline does, but leaves the server more than 0.25 s to answer.
MAX_SECONDS = "AGENTA_AI_GRPC_MAX_CALL_SECONDS"


class Caller:
    """Calls, and asserts that each call ends in time."""

    # For each call, whether it is made by the method that reports progress.
    streams: Iterator[bool] = itertools.repeat(False)

    def __init__(self, stub: ToolServiceAsyncStub) -> None:
        self._stub = stub

    async def call(self, deadline: float = 20, **arguments: Any) -> CallToolResponse:
        started = time.monotonic()
        try:
            asked = refine(**arguments)
            if next(self.streams):
                return (await streamed(self._stub, asked, timeout=deadline))[1]
            return await self._stub.CallTool(asked, timeout=deadline)
        finally:
            late = time.monotonic() - started - deadline
            assert late < LATE, f"{late:.3f} seconds too late"

    async def is_degraded(self) -> bool:
        """Whether Status says that Agenta fails."""
        status = await self._stub.Status(StatusRequest())
        return status.state == SERVICE_STATE_DEGRADED


@asynccontextmanager
async def served(proxy: Proxy, standin: StandIn, **overrides: str) -> AsyncIterator[Caller]:
    """The real server before the proxy."""
    chosen = {
        "AGENTA_AI_SERVICES_API_URL": proxy.url,
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS": "0.1",
        **overrides,
    }
    async with connected(settings_for(standin, **chosen)) as stub:
        yield Caller(stub)


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """Assert that afterwards there are no more tasks, sockets and file descriptors than before."""
    before = _open()
    yield
    gc.collect()  # an error that a test caught leads to grpc's channel
    deadline = time.monotonic() + 10
    # The ends of connections are seen a little after those of their calls.
    while (left := _open() - before) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert not left, f"left over: {left}"


def _open() -> set[str]:
    sockets = {f"socket {each.fd} {each.laddr} {each.raddr}" for each in psutil.Process().net_connections("all")}
    others = asyncio.all_tasks() - {asyncio.current_task()}
    tasks = {f"task {id(task)} {task.get_coro()}" for task in others}
    return sockets | tasks | _descriptors()


def _descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(f"descriptor {link.name} {link.readlink()}")
    return found


def keep_grpc() -> None:
    """Start what grpc shares within a process, which would else come and go with its servers."""
    grpc.aio.init_grpc_aio()
