"""What a call leaves in memory when it has ended."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
import pytest
from calls import refine, streamed
from conftest import connected, settings_for
from redis_server import RedisServer

from agenta_ai_server.idempotency import sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

FAULTS = ("status=500", "cause=not-deployed", "answer=prose", "answer=lossy", "body=plain", "reset=headers", "garbage")


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """Fail if only a garbage collection would free what the service has made.

    A call that waits outlives many collections of young objects, so that what it leaves would be kept for long.
    """
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        assert not Counter(type(each).__qualname__ for each in gc.garbage if is_ours(each))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def is_ours(each: object) -> bool:
    """Whether it is of the service; the stand-in and the client run in this process, too."""
    module = str(getattr(each, "__module__", ""))
    return module.startswith("agenta_ai_server.") and not module.startswith("agenta_ai_server.standin")


async def ends(stub: ToolServiceAsyncStub, **arguments: str) -> Counter[str]:
    """Make a call by both methods, without and with a request_id: how these calls ended."""
    codes: Counter[str] = Counter()
    for request_id in ("", str(uuid4())):
        asked = refine(**arguments)
        asked.request_id = request_id
        for call in (stub.CallTool(asked), streamed(stub, asked)):
            try:
                await call
                codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1
    return codes


@pytest.mark.parametrize("guidelines", ["", *(f"standin: {fault}" for fault in FAULTS)])
async def test_a_call_that_runs(guidelines: str, stub: ToolServiceAsyncStub) -> None:
    await ends(stub, guidelines=guidelines)
    with nothing_is_left():
        assert await ends(stub, guidelines=guidelines) == {"OK": 4}


TIGHT = {"AGENTA_AI_GRPC_MAX_CALL_SECONDS": "1", "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS": "0.1"}
ENDINGS = {
    "invalid": ({}, "x" * 20_001, "INVALID_ARGUMENT"),
    "disabled": ({"AGENTA_AI_SERVICES_API_KEY": ""}, "", "UNAVAILABLE"),
    "too late": (TIGHT, "standin: stall=body", "OK"),
    "unauthenticated": ({"AGENTA_AI_GRPC_AUTH": "agenta", "AGENTA_AI_GRPC_AGENTA_ALLOW": "*"}, "", "UNAUTHENTICATED"),
}


@pytest.mark.parametrize(("settings", "guidelines", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_a_call_that_fails(settings: dict[str, str], guidelines: str, code: str, standin: StandIn) -> None:
    async with connected(settings_for(standin, **settings)) as stub:
        await ends(stub, guidelines=guidelines)
        with nothing_is_left():
            assert await ends(stub, guidelines=guidelines) == {code: 4}


async def test_a_call_beyond_its_limit(tmp_path: Path, standin: StandIn) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("burst = 1\nper_minute = 1\n")
    settings = settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(file))
    async with connected(settings) as stub:
        await ends(stub)
        with nothing_is_left():
            assert await ends(stub) == {"RESOURCE_EXHAUSTED": 4}


async def test_a_call_that_must_queue(standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_MAX_IN_FLIGHT="1", **TIGHT)) as stub:
        await ends(stub)
        with nothing_is_left():
            codes = sum(
                await asyncio.gather(*(ends(stub, guidelines="standin: delay=0.1") for _ in range(3))), Counter()
            )
    assert codes.keys() == {"OK", "UNAVAILABLE"}


async def test_a_call_while_the_file_is_locked(
    tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 0.2)
    file = tmp_path / "ids.db"
    async with connected(settings_for(standin, AGENTA_AI_GRPC_IDEMPOTENCY_FILE=str(file))) as stub:
        await ends(stub)
        with closing(sqlite3.connect(file, isolation_level=None)) as other, nothing_is_left():
            other.execute("BEGIN IMMEDIATE")
            assert await ends(stub) == {"OK": 2, "UNAVAILABLE": 2}


@pytest.mark.needs("redis-server")
async def test_a_call_while_redis_is_frozen(tmp_path: Path, standin: StandIn) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        async with connected(settings_for(standin, AGENTA_AI_GRPC_REDIS_URL=server.url)) as stub:
            await ends(stub)
            with server.frozen(), nothing_is_left():
                assert await ends(stub) == {"OK": 2, "UNAVAILABLE": 2}
    finally:
        server.kill()
