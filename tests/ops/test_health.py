"""Health as balancers and clients use it, and as somebody who means harm does."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from conftest import settings_for
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai_server.commands import serve
from agenta_ai_server.rpc import messages

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

Status = health_pb2.HealthCheckResponse
SERVICE = "agenta.ai.v1.ToolService"
METHODS = {method.name for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods}
WATCH = "/grpc.health.v1.Health/Watch"


def watching(channel: grpc.aio.Channel, service: str) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


@pytest.mark.parametrize(
    ("service", "first"), [("", Status.SERVING), (SERVICE, Status.SERVING), ("other", Status.SERVICE_UNKNOWN)]
)
async def test_watch(service: str, first: int, standin: StandIn) -> None:
    async with serve.running(settings_for(standin)) as address, grpc.aio.insecure_channel(address) as channel:
        assert (await watching(channel, service).read()).status == first


async def test_asking_for_an_unknown_service(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListRequest"), reason="this grpcio-health-checking has no List")
async def test_asking_for_all(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        generated: Any = health_pb2
        answer = await stub.List(generated.HealthListRequest())
    names = ("", SERVICE, "agenta.ai.tools.agenta.api.v1.ApiToolsService")
    assert {name: one.status for name, one in answer.statuses.items()} == dict.fromkeys(names, Status.SERVING)


@pytest.mark.parametrize("method", ["Check", "Watch", "List"])
@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [(b"\x0a\xff\xff\x07" + b"x" * 0x1FFFF, "RESOURCE_EXHAUSTED"), (b"\x0a\x05x", "INVALID_ARGUMENT")],
    ids=["large", "unreadable"],
)
async def test_a_request_that_nobody_sends_who_asks(method: str, request_bytes: bytes, code: str, address: str) -> None:
    """300 watches with a name of 1 MB, which grpc kept for as long as they lasted, took 630 MiB."""
    async with grpc.aio.insecure_channel(address) as channel:
        asked: Any = channel.unary_stream(f"/grpc.health.v1.Health/{method}", bytes)(request_bytes)
        assert (await asked.code()).name == (code if method in METHODS else "UNIMPLEMENTED")


async def test_a_request_that_does_not_arrive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_READ_SECONDS", 0.01)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        # On the wire it is what a unary call looks like whose message is still to come.
        asked: Any = channel.stream_stream(WATCH, bytes)()
        assert await asked.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """A literal header field that is not indexed (RFC 7541, section 6.2.2); both are short."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


async def test_a_watcher_who_does_not_read_holds_up_nobody(standin: StandIn) -> None:
    fields = {":method": "POST", ":scheme": "http", ":path": WATCH, ":authority": "x", "te": "trailers"}
    headers = b"".join(header(*field) for field in (*fields.items(), ("content-type", "application/grpc")))
    running = serve.running(settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="5"))
    address = await running.__aenter__()
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    # SETTINGS_INITIAL_WINDOW_SIZE = 0: it takes no answer at all.
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
    writer.write(frame(1, 4, 1, headers) + frame(0, 1, 1, b"\0\0\0\0\0"))
    await writer.drain()
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        watch = watching(channel, "")
        assert (await watch.read()).status == Status.SERVING
        began = time.monotonic()
        await running.__aexit__(None, None, None)
        assert time.monotonic() - began < 4
    writer.close()
