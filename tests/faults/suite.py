"""What the fault suite runs against: the real server, the proxy, the stand-in; and what they must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import psutil
from calls import refine
from conftest import connected, settings_for

from agenta_ai_server import assembly
from agenta_ai_server.settings import Settings
from agenta_ai_server.upstream.agenta import AgentaCompletionService, AgentaConfig
from agenta_ai_server.upstream.breaker import Breaker, Breaking
from agenta_ai_server.upstream.retry import Retrying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from faults.proxy import Proxy

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.upstream.completion import CompletionService

DEADLINE = 1.0
# The bound is 0.2 seconds; a machine that does other things at the same time gets more.
LATE = 1.0

RETRIES = "AGENTA_AI_GRPC_RETRIES"
RETRY_UNSAFE = "AGENTA_AI_GRPC_RETRY_UNSAFE"
BREAKER = "AGENTA_AI_GRPC_BREAKER"


class Caller:
    """Calls with a deadline, and notes by how much the answers come too late.

    Attributes:
        worst: Seconds from a deadline to its answer, of the latest one; negative if all came before.
    """

    def __init__(self, stub: ToolServiceAsyncStub) -> None:
        self.stub = stub
        self.worst = -float("inf")

    async def call(self, deadline: float = DEADLINE, **arguments: Any) -> CallToolResponse:
        started = time.monotonic()
        try:
            return await self.stub.CallTool(refine(**arguments), timeout=deadline)
        finally:
            late = time.monotonic() - started - deadline
            self.worst = max(self.worst, late)
            assert late < LATE, f"{late:.3f} seconds too late"


@asynccontextmanager
async def served(
    proxy: Proxy, standin: StandIn, monkeypatch: pytest.MonkeyPatch, **overrides: str
) -> AsyncIterator[Caller]:
    """The real server before the proxy. Without overrides it neither retries nor has a breaker."""
    chosen = {
        "AGENTA_AI_SERVICES_API_URL": proxy.url,
        "AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS": "0.1",
        RETRIES: "0",
        RETRY_UNSAFE: "false",
        BREAKER: "off",
        **overrides,
    }
    if "retries" not in Settings.model_fields:
        _compose(monkeypatch, {name: chosen.pop(name) for name in (RETRIES, RETRY_UNSAFE, BREAKER)})
    async with connected(settings_for(standin, **chosen)) as stub:
        yield Caller(stub)


def _compose(monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]) -> None:
    """Put together what the settings will, once they can."""

    def make(config: AgentaConfig) -> CompletionService:
        service: CompletionService = AgentaCompletionService(config)
        if chosen[BREAKER] == "on":
            service = Breaking(service, Breaker())
        return Retrying(
            service,
            retries=int(chosen[RETRIES]),
            max_seconds=config.max_seconds,
            least_seconds=config.least_seconds,
            unsafe=chosen[RETRY_UNSAFE] == "true",
        )

    monkeypatch.setattr(assembly, "AgentaCompletionService", make)


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """Assert that afterwards there are no more tasks, sockets and file descriptors than before."""
    before = _open()
    yield
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
