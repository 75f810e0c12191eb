"""Callers that send many large requests at once: whom they keep waiting."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from calls import details, refine, request, tool_call
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.domain.arguments import LazyArguments
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.rpc import request_reader
from agenta_ai_server.rpc.handler import CallHandler, Request, ToolHandler
from agenta_ai_server.rpc.parsing import MAX_REQUEST_BYTES, parse, read_arguments
from agenta_ai_server.rpc.request_reader import RequestReader, read_at_once
from agenta_ai_server.rpc.tool_pipeline import ToolPipeline
from agenta_ai_server.rpc.wire_format import CALL_TOOL

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.tool_call import ToolCall

LARGE = 40
NUMBERS = [number + 0.1 for number in range(9_000)]
# Each takes about three steps, and a call that isn't large waits for a few of them: for eight, if grpc's threads, which
# send and receive, have the processor at once.
AHEAD = 20


@pytest.mark.parametrize("method", ["CallTool", "CallToolStream"])
async def test_other_calls_wait_for_a_few_of_them(method: str, address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel, grpc.aio.insecure_channel(address) as other:
        large = [
            asyncio.create_task(refused(channel, method, request({"a": NUMBERS}, request_id=str(uuid4()))))
            for _ in range(LARGE)
        ]
        health: Any = health_pb2_grpc.HealthStub(other)
        await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
        for call in (
            health.Check(health_pb2.HealthCheckRequest()),
            ToolServiceStub(other).CallTool(refine()),
        ):
            before = sum(task.done() for task in large)
            await call
            assert sum(task.done() for task in large) - before < AHEAD
        assert {await task for task in large} == {("INVALID_ARGUMENT", "ERROR_REASON_ARGUMENTS_INVALID")}


async def refused(channel: grpc.aio.Channel, method: str, asked: Any) -> tuple[str, str]:
    """How the call is refused, and its reason."""
    call: Any = channel.unary_unary(f"/agenta.ai.v1.ToolService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(asked.SerializeToString())
    return error.value.code().name, details(error.value)["ErrorInfo"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "large"),
    [
        ({"a": "A line of a prompt, as long as most.\n" * 400}, False),
        ({"a": "é" * 8_000}, False),
        ({"a": [1.5] * 450}, False),
        ({"a": [1.5] * 550}, True),
        ({"a": [None] * 550}, True),
        ({"a": [[[[]]]] * 200}, True),
        ({str(number): None for number in range(550)}, True),
        ({"a": "x" * 17_000}, True),
    ],
)
def test_size_isnt_all_that_makes_a_request_large(
    arguments: dict[str, Any], large: bool, make_call: Callable[[], Call]
) -> None:
    def read(data: bytes, _: Call) -> ToolCall:
        parsed = parse(data, tool_service_pb2.CallToolRequest.FromString, CALL_TOOL)
        return replace(tool_call(), lazy_arguments=LazyArguments(partial(read_arguments, parsed.arguments)))

    read_call = read_at_once(read, request(arguments).SerializeToString(), make_call())
    assert (read_call is None) is large
    assert read_call is None or read_call.arguments == arguments


class Reading:
    """A method whose requests take long to read."""

    def __init__(self) -> None:
        self.begun = 0

    async def handler(self, max_waiting: int = 100) -> CallHandler:
        async def method(_: grpc.HandlerCallDetails) -> ToolHandler:
            return ToolHandler(self._read, lambda _: b"")

        details: Any = None
        handler = await ToolPipeline([], RequestReader(max_waiting)).intercept_service(method, details)
        assert isinstance(handler, CallHandler)
        return handler

    def _read(self, data: bytes, call: Call) -> ToolCall:
        self.begun += 1
        time.sleep(0.02)
        raise Refused(Reason.REQUEST_MALFORMED, "")


async def test_a_large_request_waits_until_its_deadline(make_call: Callable[[], Call]) -> None:
    reading = Reading()
    handler = await reading.handler()

    async def message() -> bytes:
        return bytes(MAX_REQUEST_BYTES)

    async def reason_of(call: Call) -> Reason:
        with pytest.raises(Refused) as refused:
            await handler.respond(Request(message, call), call)
        return refused.value.reason

    late = replace(make_call(), deadline=asyncio.get_running_loop().time())
    reasons = await asyncio.gather(*(reason_of(call) for call in (make_call(), make_call(), late)))
    assert reasons == [Reason.REQUEST_MALFORMED, Reason.REQUEST_MALFORMED, Reason.DEADLINE_TOO_SHORT]
    assert reading.begun == 2


async def test_a_caller_has_some_requests_received_at_the_same_time(
    make_call: Callable[[], Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reader, "MAX_PER_CALLER", 3)
    reading, arrived = Reading(), asyncio.Event()
    handler = await reading.handler()
    inside: Counter[str] = Counter()

    async def reason_of(call: Call) -> Reason:
        async def message() -> bytes:
            inside[call.principal.user if call.principal else ""] += 1
            assert reading.begun or max(inside.values()) <= 3
            await arrived.wait()
            return bytes(MAX_REQUEST_BYTES)

        with pytest.raises(Refused) as refused:
            await handler.respond(Request(message, call), call)
        return refused.value.reason

    def start(**changes: Any) -> asyncio.Task[Reason]:
        return asyncio.create_task(reason_of(replace(make_call(), **changes)))

    calls = [start() for _ in range(12)]
    late = start(deadline=asyncio.get_running_loop().time())
    other = start(principal=Principal("other"))
    assert await late == Reason.DEADLINE_TOO_SHORT
    for call in (calls.pop(7), calls.pop(0)):
        call.cancel()
    arrived.set()
    assert set(await asyncio.gather(*calls, other)) == {Reason.REQUEST_MALFORMED}
    assert reading.begun == 11
    assert inside["other"] == 1


async def test_so_many_requests_of_a_caller_may_wait(
    make_call: Callable[[], Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reader, "MAX_PER_CALLER", 3)
    reading, arrived = Reading(), asyncio.Event()
    handler = await reading.handler(max_waiting=2)

    async def message() -> bytes:
        await arrived.wait()
        return b""

    async def refusal(user: str) -> Refused:
        call = replace(make_call(), principal=Principal(user))
        with pytest.raises(Refused) as refused:
            await handler.respond(Request(message, call), call)
        return refused.value

    calls = [asyncio.create_task(refusal(user)) for user in ("one", "one", "one", "one", "one", "one", "two")]
    await asyncio.sleep(0)
    arrived.set()
    refusals = await asyncio.gather(*calls)
    malformed = Reason.REQUEST_MALFORMED
    assert [each.reason for each in refusals] == [malformed] * 5 + [Reason.OVERLOADED, malformed]
    assert 1 <= (refusals[5].retry_delay or 0) <= 2
