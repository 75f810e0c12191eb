"""A process that stops ends what callers of another wait for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import refine, streamed
from conftest import connected, settings_for
from idempotency.conftest import until

if TYPE_CHECKING:
    from redis_server import RedisServer

    from agenta_ai_server.standin.app import StandIn

pytestmark = pytest.mark.needs("redis-server")


async def test_a_stop_waits_for_what_others_wait_for(standin: StandIn, redis: RedisServer) -> None:
    more = {"AGENTA_AI_GRPC_REDIS_URL": redis.url, "AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS": "20"}
    asked = refine(guidelines="standin: delay=2")
    asked.request_id = str(uuid4())

    async def is_followed() -> bool:
        return bool(redis.do("KEYS", "*:followers"))

    async with connected(settings_for(standin, **more)) as staying, AsyncExitStack() as stopping:
        stub = await stopping.enter_async_context(connected(settings_for(standin, **more)))
        first = stub.CallTool(asked)
        running = asyncio.ensure_future(first)
        await standin.when(lambda: standin.in_flight == 1)
        first.cancel()
        await asyncio.gather(running, return_exceptions=True)
        repeat = asyncio.ensure_future(staying.CallTool(asked))
        await until(is_followed)
        await stopping.aclose()
        assert not (await repeat).is_error
    assert standin.started == 1


async def test_progress_stays_with_the_process_that_runs_the_call(standin: StandIn, redis: RedisServer) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_REDIS_URL=redis.url)
    asked = refine(guidelines="standin: delay=1")
    asked.request_id = str(uuid4())
    async with connected(settings) as here, connected(settings) as elsewhere:
        first = asyncio.ensure_future(streamed(here, asked))
        await standin.when(lambda: standin.in_flight == 1)
        progress, result = await streamed(elsewhere, asked)
        assert (await first)[0]
        assert progress == []
        # It was waited for, and not replayed.
        assert result == (await first)[1]
    assert standin.started == 1
