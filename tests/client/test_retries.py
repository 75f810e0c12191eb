"""Calls of a tool that are sent more than once, and are one call all the same."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from conftest import settings_for
from google.rpc import status_pb2
from proxy import Proxy

from agenta_ai import CallFailed, Client
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.conftest import Call, FakeServer

    from agenta_ai.v1 import tool_service_pb2 as pb
    from agenta_ai_server.standin.app import StandIn

REQUEST_ID = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"
UNAVAILABLE = status_pb2.Status(code=14, message="down")
TEMPLATE = {"messages": [{"role": "user", "content": "Answer in {{language}}."}]}


async def test_all_attempts_are_one_call(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(*[UNAVAILABLE] * 4, answer(content=[{"text": "Done."}]))
    result = await call("call_tool", "tools.x.y.z", {"n": 1})
    assert result.text == "Done."
    assert len(result.request_id) == 36
    assert [request.request_id for request in server.service.requests] == [result.request_id] * 5
    assert all(request == server.service.requests[0] for request in server.service.requests)


async def test_when_all_attempts_fail_the_call_is_in_doubt(call: Call, server: FakeServer) -> None:
    server.answers(UNAVAILABLE)
    with pytest.raises(CallFailed) as failure:
        await call("call_tool", "tools.x.y.z", {})
    request_id = server.service.requests[0].request_id
    assert str(failure.value) == (
        f"No answer from {server.target}: down. The call may have run and may have been billed. "
        f"To get its result, send it again with request_id {request_id}."
    )
    assert (failure.value.code, failure.value.tool_was_run) == (grpc.StatusCode.UNAVAILABLE, None)
    assert [request.request_id for request in server.service.requests] == [request_id] * 5


async def test_a_connection_lost_in_mid_call(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(None, answer(content=[{"text": "Done."}]))
    async with Proxy(server.target) as proxy:
        client = {"target": proxy.target}
        calling = asyncio.ensure_future(call("call_tool", "tools.x.y.z", {}, client=client, request_id=REQUEST_ID))
        assert await asyncio.to_thread(server.service.asked.wait, 10)
        proxy.cut()
        assert (await calling).text == "Done."
    assert [request.request_id for request in server.service.requests] == [REQUEST_ID] * 2


async def test_a_server_that_was_away_for_long_is_found_soon() -> None:
    attempts: asyncio.Queue[float] = asyncio.Queue()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.put_nowait(time.monotonic())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        async with Client(f"{host}:{port}") as client:
            with pytest.raises(CallFailed, match=r"^Cannot reach"):
                await client.status(timeout=60)
            times = [await attempts.get() for _ in range(9)]
    # The retries of a tool call take at least 1.2 seconds. By now, gRPC's own delays would be two to five.
    assert min(later - earlier for earlier, later in pairwise(times[-4:])) <= 1.3


async def test_a_server_lost_in_mid_call(call: Call, server: FakeServer) -> None:
    server.answers(None)
    calling = asyncio.ensure_future(call("call_tool", "tools.x.y.z", {}))
    assert await asyncio.to_thread(server.service.asked.wait, 10)
    await asyncio.to_thread(server.cut)
    with pytest.raises(CallFailed, match=r"^Cannot reach .*: connection refused\. Is agenta-ai-server") as lost:
        await calling
    # The first attempt was sent, although the last one wasn't.
    assert (lost.value.code, lost.value.tool_was_run) == (grpc.StatusCode.UNAVAILABLE, None)
    (request,) = server.service.requests
    assert lost.value.request_id == request.request_id
    assert str(lost.value).endswith(f"To get its result, send it again with request_id {request.request_id}.")


@pytest.mark.parametrize(("of_client", "of_call"), [({"retries": 0}, {}), ({}, {"retries": 0})], ids=["client", "call"])
async def test_repeats_can_be_switched_off(call: Call, server: FakeServer, of_client: Any, of_call: Any) -> None:
    server.answers(UNAVAILABLE)
    with pytest.raises(CallFailed):
        await call("call_tool", "tools.x.y.z", {}, client=of_client, **of_call)
    assert len(server.service.requests) == 1


async def test_a_call_may_be_repeated_although_its_client_does_not(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(UNAVAILABLE, answer(content=[{"text": "Done."}]))
    result = await call("call_tool", "tools.x.y.z", {}, client={"retries": 0}, retries=1)
    assert result.text == "Done."


async def test_the_server_says_not_to_try_again(
    call: Call, server: FakeServer, refused: Callable[..., status_pb2.Status]
) -> None:
    server.answers((refused(grpc.StatusCode.UNAVAILABLE, "SERVICE_DISABLED", "It is off."), -1))
    with pytest.raises(CallFailed, match=r"^It is off\.$") as failure:
        await call("call_tool", "tools.x.y.z", {})
    assert (failure.value.reason, failure.value.tool_was_run) == ("SERVICE_DISABLED", False)
    assert len(server.service.requests) == 1


async def test_no_attempt_outlasts_the_deadline(call: Call, server: FakeServer) -> None:
    server.answers(UNAVAILABLE, None)
    with pytest.raises(CallFailed, match=rf"within 2 s.*request_id {REQUEST_ID}\.$") as failure:
        await call("call_tool", "tools.x.y.z", {}, request_id=REQUEST_ID, timeout=2)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    first, second = server.service.time_remaining
    assert second < first < 2.1


async def test_a_retry_joins_what_runs(call: Call, standin: StandIn, address: str) -> None:
    """Against the real server: who loses the connection gets the result, and it is paid for once."""
    async with Proxy(address) as proxy:
        client, guidelines = {"target": proxy.target}, "standin: delay=2.5"
        calling = asyncio.ensure_future(call("refine_prompt", TEMPLATE, client=client, guidelines=guidelines))
        await standin.when(lambda: standin.started == 1)
        proxy.cut()
        refined = await calling
        assert proxy.connections == 2
    assert "{{language}}" in refined.messages[0]["content"]
    assert not refined.meta.replayed
    assert standin.started == 1


async def test_the_way_out_of_a_doubt(call: Call, standin: StandIn) -> None:
    """Against the real server: the id that the error names gets the result of the call that had no answer."""
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0.1")) as address:
        again = partial(call, "refine_prompt", TEMPLATE, client={"target": address}, guidelines="standin: delay=0.5")
        with pytest.raises(CallFailed) as failure:
            await again(timeout=0.3)
        assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        refined = await again(request_id=failure.value.request_id)
        assert "{{language}}" in refined.messages[0]["content"]
    assert standin.started == 1
