"""Callers that hold something by sending slowly, or nothing at all: for how long they may."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from calls import details, refine
from conftest import connected, settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.rpc import messages, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.standin.app import StandIn

SERVICE = "/agenta.ai.v1.ToolService/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("method", ["Status", "ListTools", "CallTool", "CallToolStream"])
async def test_a_request_that_does_not_arrive(method: str, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_READ_SECONDS", 0.3)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with serve.running(settings_for(standin)) as address, grpc.aio.insecure_channel(address) as channel:
        # No deadline of the caller's own.
        call = channel.stream_unary(SERVICE + method, as_it_is, bytes)(nothing())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asyncio.wait_for(call, 20)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_DEADLINE_TOO_SHORT"
    assert standin.started == 0


def as_it_is(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "a preface"])
async def test_a_connection_that_says_nothing(said: bytes, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    async with serve.running(settings_for(standin)) as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        # Up to the end: its own settings it sends at once. The system resets a connection with bytes that nobody reads.
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_a_connection_that_has_spoken_stays(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 1.5)
    async with connected(settings_for(standin)) as stub:
        assert not (await stub.CallTool(refine())).is_error
        call = stub.CallTool(refine(guidelines="standin: delay=2.5"))
        assert not (await call).is_error
