"""Reflection, which strangers may use, keeps little in memory for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agenta_ai_server.rpc import open_methods

if TYPE_CHECKING:
    import pytest


async def test_a_large_request_is_not_repeated(address: str) -> None:
    """400 unread answers to requests of 1 MB took 1.7 GiB."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(file_by_filename="x" * 100_000))
        answer = await call.read()
    assert answer.ByteSize() < 100
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_a_request_that_does_not_arrive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_methods, "MAX_READ_SECONDS", 0.01)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        assert await stub.ServerReflectionInfo().read() is grpc.aio.EOF
