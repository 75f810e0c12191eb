"""More calls than there are places: who waits, who is refused, and what is answered all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
import pytest
from addresses import free_address
from calls import details, refine, trailers
from conftest import settings_for
from grpc_health.v1 import health_pb2, health_pb2_grpc
from telemetry.conftest import scrape_until

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.standin.app import StandIn

SLOW = refine(guidelines="standin: delay=0.5")


def two_at_a_time(standin: StandIn, **more: str) -> Settings:
    """Settings by which two calls run, and a third is queued."""
    return settings_for(standin, AGENTA_AI_GRPC_MAX_IN_FLIGHT="2", **more)


async def test_calls_wait_for_a_place(standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_MAX_IN_FLIGHT="8")
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        begun = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(stub.CallTool(SLOW) for _ in range(10)))
        took = asyncio.get_running_loop().time() - begun
    assert not any(answer.is_error for answer in answers)
    # Eight at a time, each for half a second.
    assert took >= 1


async def test_when_there_is_no_room_to_wait_it_is_said_at_once(standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_MAX_IN_FLIGHT="1")
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        running = asyncio.ensure_future(stub.CallTool(refine(guidelines="standin: delay=50")))
        await standin.when(lambda: standin.in_flight == 1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(refine())
        # What tells the state of things is answered also now.
        assert (await stub.Status(tool_service_pb2.StatusRequest())).enabled
        checks: Any = health_pb2_grpc.HealthStub(channel)
        health = await checks.Check(health_pb2.HealthCheckRequest())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    found = details(refused.value)
    assert found["ErrorInfo"]["reason"] == "ERROR_REASON_OVERLOADED"
    assert 1 <= float(found["RetryInfo"]["retryDelay"].removesuffix("s")) <= 60
    assert int(trailers(refused.value)["grpc-retry-pushback-ms"]) >= 1000
    assert standin.started == 1


@pytest.mark.parametrize("request_id", ["", "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"])
async def test_who_would_wait_too_long_is_refused_at_once(request_id: str, standin: StandIn) -> None:
    asked = refine()
    asked.request_id = request_id
    async with serve.running(two_at_a_time(standin)) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        slow = refine(guidelines="standin: delay=50")
        running = asyncio.gather(stub.CallTool(slow), stub.CallTool(slow), return_exceptions=True)
        await standin.when(lambda: standin.in_flight == 2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(asked, timeout=2)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_OVERLOADED"


async def test_what_waits_in_line_is_not_run_for_those_who_have_left(standin: StandIn) -> None:
    answers, metrics = asyncio.Event(), free_address()

    async def wait(_: object) -> None:
        await answers.wait()

    standin.respond = wait
    settings = two_at_a_time(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics)
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        first = asyncio.gather(stub.CallTool(refine()), stub.CallTool(refine()))
        await standin.when(lambda: standin.in_flight == 2)
        asked = refine()
        asked.request_id = str(uuid4())
        waiting = stub.CallTool(asked)
        left = asyncio.ensure_future(waiting)
        await scrape_until(metrics, lambda samples: samples["agenta_ai_waiting"] == {(): 1})
        waiting.cancel()
        await asyncio.gather(left, return_exceptions=True)
        await scrape_until(metrics, lambda samples: samples["agenta_ai_waiting"] == {(): 0})
        answers.set()
        await first
        assert not (await stub.CallTool(refine(), timeout=10)).is_error
    assert standin.started == 3


async def test_a_cancelled_call_leaves_the_line(standin: StandIn) -> None:
    async with serve.running(two_at_a_time(standin)) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        first = asyncio.gather(stub.CallTool(SLOW), stub.CallTool(SLOW))
        await standin.when(lambda: standin.in_flight == 2)
        for _ in range(5):
            waiting = stub.CallTool(SLOW)
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not (await stub.CallTool(refine())).is_error
        assert not any(answer.is_error for answer in await first)
