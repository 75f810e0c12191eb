"""Reflection, which strangers may use, keeps little in memory for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agenta_ai_server.rpc import open_methods, reflection

if TYPE_CHECKING:
    import pytest


def stub_of(channel: Any) -> Any:
    return reflection_pb2_grpc.ServerReflectionStub(channel)


async def test_the_calls_of_a_connection_are_bounded_and_counted_only_while_they_last(address: str) -> None:
    """600 that read nothing took 100 MiB, on a single connection."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub = stub_of(channel)
        for _ in range(2):
            calls = [await opened(stub) for _ in range(reflection.MAX_CALLS)]
            assert await stub.ServerReflectionInfo().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            for call in calls:
                call.cancel()


async def test_the_calls_of_all_connections_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_CALLS_IN_ALL", 1)
    async with grpc.aio.insecure_channel(address) as one, asyncio.timeout(10):
        call = await opened(stub_of(one))
        # Channels with different options don't share a connection.
        async with grpc.aio.insecure_channel(address, [("grpc.primary_user_agent", "other")]) as other:
            assert await stub_of(other).ServerReflectionInfo().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            call.cancel()
            await opened(stub_of(other))


async def opened(stub: Any) -> Any:
    """Return a call that has been answered. Those that were cancelled may still count for a moment."""
    while True:
        call = stub.ServerReflectionInfo()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            if await call.read() is not grpc.aio.EOF:
                return call


async def test_a_large_request_is_not_repeated(address: str) -> None:
    """400 unread answers to requests of 1 MB took 1.7 GiB."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub = stub_of(channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(file_by_filename="x" * 100_000))
        answer = await call.read()
    assert answer.ByteSize() < 100
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_a_request_that_does_not_arrive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_methods, "MAX_READ_SECONDS", 0.01)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub = stub_of(channel)
        assert await stub.ServerReflectionInfo().read() is grpc.aio.EOF
