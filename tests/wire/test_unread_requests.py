"""Callers that send more than what is read: what of it the server takes."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc.aio
import h2.config
import h2.connection
import pytest
from calls import refine
from conftest import settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.rpc.server import MAX_UNREAD_BYTES

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

MESSAGE = b"\0" + struct.pack(">I", 16_000) + bytes(16_000)
# Within which a server that takes more grants a larger window.
QUIET_SECONDS = 0.5


@pytest.mark.parametrize(
    "path",
    ["/agenta.ai.v1.ToolService/CallTool", "/agenta.ai.v1.ToolService/CallToolStream", "/grpc.health.v1.Health/Watch"],
)
async def test_what_is_sent_after_the_request_is_bounded(path: str, standin: StandIn) -> None:
    asked = b"" if "Health" in path else refine(guidelines="standin: delay=60").SerializeToString()
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="0")) as address:
        sent = await flood(address, path, b"\0" + struct.pack(">I", len(asked)) + asked)
    # Without a bound of ours, grpc takes four megabytes and more.
    assert sent < 2 * MAX_UNREAD_BYTES


@pytest.mark.parametrize("path", ["/agenta.ai.v1.ToolService/CallTool", "/grpc.health.v1.Health/Check"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_request_is_not_decompressed(path: str, compression: grpc.Compression, address: str) -> None:
    async with grpc.aio.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        method: Any = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(bytes(32 << 20), compression=compression)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "is disabled" in (refused.value.details() or "")


async def flood(address: str, path: str, request: bytes) -> int:
    """Send a request, and behind it as much as the server takes, up to 2 MiB; return the bytes that it took."""
    url = urlsplit(f"//{address}")
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    connection.send_headers(1, [*headers.items(), ("content-type", "application/grpc")])
    connection.send_data(1, request)
    sent = 0
    try:
        while sent < 1 << 21:
            while room := min(connection.local_flow_control_window(1), connection.max_outbound_frame_size):
                rest = len(MESSAGE) - sent % len(MESSAGE)
                connection.send_data(1, MESSAGE[-rest:][:room])
                sent += min(rest, room)
            writer.write(connection.data_to_send())
            connection.receive_data(await asyncio.wait_for(reader.read(1 << 16), QUIET_SECONDS))
    except TimeoutError:
        return sent
    finally:
        writer.close()
    return sent
