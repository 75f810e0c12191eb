"""Reflection, which strangers may use, keeps little in memory for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_reflection.v1alpha import _base, reflection_pb2, reflection_pb2_grpc

from agenta_ai_server.rpc import messages, reflection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
    monkeypatch.setattr(messages, "MAX_READ_SECONDS", 0.01)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub = stub_of(channel)
        assert await stub.ServerReflectionInfo().read() is grpc.aio.EOF


async def test_each_file_is_serialized_once_and_each_answer_repeats_its_request(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 500 tools, one stranger's requests kept all other callers waiting for seconds."""
    made: list[str] = []
    library: Any = _base
    make = library._file_descriptor_response

    def counted(file: Any, request: Any) -> Any:
        made.append(file.name)
        return make(file, request)

    monkeypatch.setattr(library, "_file_descriptor_response", counted)
    names = ("agenta.ai.v1.ToolService", "agenta.ai.v1.ToolService.CallTool", "agenta.ai.v1.CallToolRequest")
    requests = [reflection_pb2.ServerReflectionRequest(host="h", file_containing_symbol=name) for name in names]
    requests.append(reflection_pb2.ServerReflectionRequest(file_by_filename="agenta/ai/v1/tool_service.proto"))
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        answers = [answer for _ in range(2) async for answer in stub_of(channel).ServerReflectionInfo(requests)]
    assert [answer.original_request for answer in answers] == requests * 2
    assert len({answer.file_descriptor_response.SerializeToString() for answer in answers}) == 1
    assert made == ["agenta/ai/v1/tool_service.proto"]


async def test_the_calls_of_others_come_between_two_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns, answer = 0, [], reflection._Answers.answer

    async def observed(answers: Any, request: Any) -> bytes:
        turns.append(turn)
        return await answer(answers, request)

    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        for _ in range(10):
            yield reflection_pb2.ServerReflectionRequest(list_services="")

    monkeypatch.setattr(reflection._Answers, "answer", observed)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        stub = stub_of(channel)
        calls = [stub.ServerReflectionInfo(requests()) for _ in range(reflection.MAX_CALLS)]
        reading = asyncio.gather(*(read_all(call) for call in calls))
        while not reading.done():
            turn += 1
            await asyncio.sleep(0)
    assert await reading == [10] * reflection.MAX_CALLS
    assert len(set(turns)) == len(turns)


async def read_all(call: Any) -> int:
    return len([answer async for answer in call])
