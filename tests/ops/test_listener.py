"""The port: health, reflection, a busy address, and the end."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest
from calls import details, refine
from conftest import connected, settings_for
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.checks import machine
from agenta_ai_server.commands import serve
from agenta_ai_server.rpc import boundary, request_reader, server
from agenta_ai_server.rpc.arrivals import Arrivals
from agenta_ai_server.rpc.messages import MAX_READ_SECONDS
from agenta_ai_server.rpc.probe import is_served
from agenta_ai_server.rpc.server import ListenerFailed, ListenError, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn

SERVICE = "agenta.ai.v1.ToolService"
# For listeners that other machines can reach.
OPEN = {"AGENTA_AI_GRPC_ALLOW_NO_AUTH": "true"}


@pytest.mark.parametrize("name", ["", SERVICE])
async def test_healthy(name: str, address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_of(channel)
        checked = await health.Check(health_pb2.HealthCheckRequest(service=name))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_what_is_not_there(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_of(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def health_of(channel: grpc.aio.Channel) -> Any:
    """The stub, whose methods the stubs for types don't know."""
    return health_pb2_grpc.HealthStub(channel)


async def services(address: str, version: str) -> list[str]:
    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(requests())
        return [service.name async for response in call for service in response.list_services_response.service]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(version: str, address: str) -> None:
    assert SERVICE in await services(address, version)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_off(version: str, standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_REFLECTION="off")) as address:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await services(address, version)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_busy_port_is_an_error(address: str, standin: StandIn) -> None:
    with pytest.raises(ListenError, match=f"can't listen on {address}: it is in use"):
        async with serve.running(settings_for(standin, AGENTA_AI_GRPC_LISTEN=address)):
            pass


@pytest.mark.parametrize(("taken", "asked"), [("::1", "[::]"), ("::", "[::]"), ("127.0.0.1", "[::]"), ("::1", "[::1]")])
async def test_an_address_is_held_as_a_whole_or_not_at_all(taken: str, asked: str, standin: StandIn) -> None:
    with socket.socket(socket.AF_INET6 if ":" in taken else socket.AF_INET) as other:
        if ":" in taken:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind((taken, 0))
        other.listen()
        address = f"{asked}:{other.getsockname()[1]}"
        with pytest.raises(ListenError, match="in use"):
            async with serve.running(settings_for(standin, AGENTA_AI_GRPC_LISTEN=address, **OPEN)):
                pass


async def test_it_says_which_addresses_are_served(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agenta_ai_server.rpc")
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_LISTEN="[::]:0", **OPEN)) as address:
        port = address.rpartition(":")[2]
    assert f"listening on [::]:{port}, 0.0.0.0:{port}" in caplog.text


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "all_proxy"])
async def test_no_proxy_stands_between_a_server_and_its_own_check(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await is_served(address)


async def test_a_live_unix_socket_is_not_taken_away(standin: StandIn, tmp_path: Path) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_LISTEN=f"unix:{tmp_path}/s")
    async with connected(settings) as stub:
        with pytest.raises(ListenError, match="another server already does"):
            async with serve.running(settings):
                pass
        assert (await stub.Status(tool_service_pb2.StatusRequest())).enabled
    async with connected(settings) as stub:
        assert (await stub.Status(tool_service_pb2.StatusRequest())).enabled


def folder(path: Path) -> None:
    path.mkdir()


def file(path: Path) -> None:
    path.write_text("precious")


def nothing_above(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (folder, "it is a folder"),
        (file, "there is a file of this name that is not a socket"),
        (nothing_above, "there is no folder"),
    ],
)
async def test_what_is_wrong_with_the_path_of_a_socket(
    spoil: Callable[[Path], None], why: str, standin: StandIn, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "s"
    path.parent.mkdir()
    spoil(path)
    settings = settings_for(standin, AGENTA_AI_GRPC_LISTEN=f"unix:{path}")
    with pytest.raises(ListenError, match=f"can't listen on unix:.*: {why}"):
        async with serve.running(settings):
            pass
    assert not path.is_file() or path.read_text() == "precious"
    found = [each async for each in machine.address(settings)]
    assert [(each.state, why in each.said) for each in found] == [("failed", True)]


async def test_unix_socket(standin: StandIn, tmp_path: Path) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_LISTEN=f"unix:{tmp_path}/s")) as stub:
        assert (await stub.Status(tool_service_pb2.StatusRequest())).enabled


async def test_running_calls_end_well_and_watchers_do_not_hold_up_the_stop(standin: StandIn) -> None:
    loop = asyncio.get_running_loop()
    settings = settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="60")
    running = serve.running(settings)
    address = await running.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        watch = health_of(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = asyncio.ensure_future(_slow(channel))
        await standin.when(lambda: standin.in_flight == 1)
        stopping = asyncio.ensure_future(running.__aexit__(None, None, None))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        began = loop.time()
        assert not (await call).is_error
        await stopping
        assert loop.time() - began < 30
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address.split(":"))


async def test_calls_that_never_send_their_request_do_not_hold_up_the_stop(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals = Arrivals()
    monkeypatch.setattr(boundary, "Arrivals", lambda: arrivals)
    monkeypatch.setattr(server, "ARRIVAL_SECONDS", 0)
    running = serve.running(settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="60"))
    address = await running.__aenter__()

    async def refusal(path: str) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(path)()
        return refused.value.code().name, details(refused.value)["ErrorInfo"]["reason"]

    async with grpc.aio.insecure_channel(address) as channel:

        def method(path: str) -> Any:
            return channel.stream_unary(f"/{SERVICE}/{path}")

        paths = ["Status", "ListTools", *["CallTool"] * (request_reader.MAX_PER_CALLER + 10)]
        call = asyncio.ensure_future(_slow(channel))
        await standin.when(lambda: standin.in_flight == 1)
        unsent = [asyncio.ensure_future(refusal(path)) for path in paths]
        async with asyncio.timeout(MAX_READ_SECONDS / 2):
            while len(arrivals) < len(paths):  # noqa: ASYNC110  # only the server knows what has arrived
                await asyncio.sleep(0.01)
            await running.__aexit__(None, None, None)
            assert set(await asyncio.gather(*unsent)) == {("UNAVAILABLE", "ERROR_REASON_OVERLOADED")}
        assert not (await call).is_error


async def test_calls_are_still_accepted_while_balancers_notice(standin: StandIn) -> None:
    running = serve.running(settings_for(standin, AGENTA_AI_GRPC_DRAIN_SECONDS="2"))
    address = await running.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = ToolServiceStub(channel)
        await stub.Status(tool_service_pb2.StatusRequest())
        stopping = asyncio.ensure_future(running.__aexit__(None, None, None))
        await asyncio.sleep(0)
        responses = await asyncio.gather(*(stub.CallTool(refine()) for _ in range(20)))
        status = await stub.Status(tool_service_pb2.StatusRequest())
        checked = await health_of(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert not any(response.is_error for response in responses)
        assert status.state == tool_service_pb2.SERVICE_STATE_DRAINING
        assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


async def test_reflection_says_nothing_of_what_it_cannot_read(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> AsyncIterator[bytes]:
        yield b"\xff"

    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        answers = [reflection_pb2.ServerReflectionResponse.FromString(answer) async for answer in call(bad())]
    assert answers[0].error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert caplog.text == ""


async def _slow(channel: grpc.aio.Channel) -> tool_service_pb2.CallToolResponse:

    return await ToolServiceStub(channel).CallTool(refine(guidelines="standin: delay=0.5"))


@pytest.mark.parametrize(
    "path", [b"/agenta.ai.v1.ToolService/\xff", b"\xff", b"/\xed\xa0\x80/x"], ids=["method", "no slash", "surrogate"]
)
async def test_a_path_that_is_not_utf8_ends_only_its_own_call(path: bytes, address: str) -> None:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    config = h2.config.H2Configuration(
        client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    headers = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x", b"te": b"trailers"}
    connection.send_headers(1, [*headers.items(), (b"content-type", b"application/grpc")], end_stream=True)
    writer.write(connection.data_to_send())
    ended = False
    while not ended:
        data = await asyncio.wait_for(reader.read(1 << 16), 20)
        events = connection.receive_data(data)
        ended = not data or any(isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) for event in events)
    writer.close()
    async with grpc.aio.insecure_channel(address) as channel:
        checked = await health_of(channel).Check(health_pb2.HealthCheckRequest())
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_service_ends_if_grpc_stops_listening(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    start, listening = Server.start, asyncio.get_running_loop().create_future()

    async def start_and_tell(server: Server, address: str) -> str:
        started = await start(server, address)
        listening.set_result(server._server)
        return started

    monkeypatch.setattr(Server, "start", start_and_tell)
    serving = asyncio.create_task(serve.serve(settings_for(standin)))
    await (await listening).stop(None)
    with pytest.raises(ListenerFailed, match="has stopped listening"):
        await asyncio.wait_for(serving, 20)
