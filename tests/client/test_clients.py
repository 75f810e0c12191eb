from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from addresses import UNKNOWN_HOST
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import (
    AgentaError,
    CallFailed,
    Client,
    InvalidInput,
    ServiceState,
    SyncClient,
    Tool,
    ToolFailed,
    ToolPage,
    requests,
)
from agenta_ai.attempts import Attempts
from agenta_ai.v1 import tool_pb2
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.conftest import Call, FakeServer

TEMPLATE = {
    "messages": [{"role": "system", "content": "Answer in {{language}}."}, {"role": "user", "content": None}],
    "llm_config": {"top_p": 1.0, "seed": 2**60},
}
UNREACHABLE = "127.0.0.1:1"
UNAVAILABLE = status_pb2.Status(code=14, message="down")


def refinement(**meta: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Answer briefly in {{language}}."}, TEMPLATE["messages"][1]]  # type: ignore[index]
    template = json.dumps({**TEMPLATE, "messages": messages})
    content = {"messages": messages, "summary": "Briefer.", "prompt_template_json": template}
    return {"content": [{"text": "Briefer."}], "structuredContent": content, "meta": meta}


async def test_status(call: Call, server: FakeServer) -> None:
    server.answers(pb.StatusResponse(enabled=True, state=pb.SERVICE_STATE_SERVING))
    status = await call("status", client={"metadata": [("X-Team", "search")]})
    assert status.enabled
    assert status.state is ServiceState.SERVING
    assert server.service.metadata[0]["x-team"] == "search"
    assert server.service.metadata[0]["user-agent"].startswith("agenta-ai/0.1.0 ")


async def test_all_pages_of_tools(call: Call, server: FakeServer) -> None:
    pages = [(["a", "b"], "1"), ([], "2"), (["c"], "")]
    server.answers(
        *(
            pb.ListToolsResponse(tools=[tool_pb2.Tool(name=name) for name in names], next_page_token=token)
            for names, token in pages
        )
    )
    tools = await call("list_tools")
    assert [tool.name for tool in tools] == ["a", "b", "c"]
    assert [request.page_token for request in server.service.requests] == ["", "1", "2"]


async def test_one_page_of_tools(call: Call, server: FakeServer) -> None:
    page = pb.ListToolsResponse(tools=[tool_pb2.Tool(name="a")], next_page_token="2", cache_scope=pb.CACHE_SCOPE_PUBLIC)
    page.ttl.FromMilliseconds(30_500)
    server.answers(page, pb.ListToolsResponse())
    assert await call("list_tools_page") == ToolPage((Tool("a"),), "2", ttl=30.5, is_public=True)
    assert await call("list_tools_page", "2") == ToolPage()
    assert [request.page_token for request in server.service.requests] == ["", "2"]


async def test_pages_that_go_round(call: Call, server: FakeServer) -> None:
    server.answers(*(pb.ListToolsResponse(next_page_token=token) for token in "abab"))
    with pytest.raises(AgentaError, match="repeats a page"):
        await call("list_tools")
    assert [request.page_token for request in server.service.requests] == ["", "a", "b"]


async def test_pages_without_end(call: Call, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_PAGES", 3)
    server.answers(*(pb.ListToolsResponse(next_page_token=token) for token in "abcdef"))
    with pytest.raises(AgentaError, match="more than 3 pages"):
        await call("list_tools")
    assert [request.page_token for request in server.service.requests] == ["", "a", "b"]


async def test_call_tool(call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> None:
    server.answers(answer(content=[{"text": "Done."}], structuredContent={"n": 3}, meta={"traceId": "ab"}))
    result = await call("call_tool", "tools.x.y.z", {"a": [1]})
    request = server.service.requests[0]
    assert (request.name, dict(request.arguments)) == ("tools.x.y.z", {"a": [1]})
    assert (result.text, result.structured_content, result.meta.trace_id) == ("Done.", {"n": 3}, "ab")
    assert result.request_id == request.request_id


async def test_a_tool_that_failed_is_a_result(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    error = {"reason": "ERROR_REASON_UPSTREAM_TIMEOUT", "fieldViolations": [{"field": "f", "description": "d"}]}
    server.answers(answer(content=[{"text": "Too late."}], isError=True, error=error))
    result = await call("call_tool", "tools.x.y.z", {})
    assert result.is_error
    assert (result.error.reason, result.error.retryable) == ("UPSTREAM_TIMEOUT", False)


async def test_refine_prompt(call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> None:
    server.answers(answer(**refinement(traceId="ab", attempts=[{"duration": "1.250s"}])))
    refined = await call("refine_prompt", TEMPLATE, guidelines="Be brief.")
    assert refined.template["llm_config"] == TEMPLATE["llm_config"]
    assert refined.messages == refined.template["messages"]
    assert (refined.summary, refined.trace_id, refined.meta.attempts[0].duration) == ("Briefer.", "ab", 1.25)
    assert refined.original == TEMPLATE
    (change,) = refined.diff()
    assert "+Answer briefly in {{language}}." in change.lines()


async def test_a_failed_refinement_is_raised(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    error = {"reason": "ERROR_REASON_UPSTREAM_RATE_LIMITED", "retryable": True, "retryDelay": "3s"}
    server.answers(answer(content=[{"text": "Too many requests."}], isError=True, error=error, meta={"traceId": "ab"}))
    with pytest.raises(ToolFailed) as failure:
        await call("refine_prompt", TEMPLATE)
    assert (failure.value.reason, failure.value.retry_delay) == ("UPSTREAM_RATE_LIMITED", 3)
    assert (failure.value.message, failure.value.trace_id) == ("Too many requests.", "ab")


async def test_reading_is_retried(call: Call, server: FakeServer) -> None:
    server.answers(UNAVAILABLE, UNAVAILABLE, pb.StatusResponse(enabled=True))
    assert (await call("status")).enabled
    assert len(server.service.requests) == 3


@pytest.mark.parametrize(("method", "args"), [("status", ()), ("call_tool", ("tools.x.y.z", {}))])
async def test_a_limit_is_not_retried(
    call: Call, server: FakeServer, refused: Callable[..., status_pb2.Status], method: str, args: Any
) -> None:
    server.answers(refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No."))
    with pytest.raises(CallFailed) as failure:
        await call(method, *args)
    assert len(server.service.requests) == 1
    assert (failure.value.reason, failure.value.call_id, failure.value.tool_was_run) == (
        "RATE_LIMITED",
        "call-7",
        False,
    )
    assert bool(failure.value.request_id) is (method == "call_tool")
    assert failure.value.__suppress_context__


async def test_retries_end(call: Call, server: FakeServer) -> None:
    server.answers(UNAVAILABLE)
    with pytest.raises(CallFailed) as failure:
        await call("status")
    assert failure.value.tool_was_run is None
    assert len(server.service.requests) == 4


@pytest.mark.parametrize(
    ("method", "args", "options", "seconds"),
    [
        ("status", (), {}, 10),
        ("list_tools", (), {"timeout": 5}, 5),
        ("call_tool", ("x", {}), {}, 70),
        ("refine_prompt", ({},), {"timeout": 200}, 200),
    ],
)
async def test_every_call_has_a_deadline(
    call: Call, server: FakeServer, method: str, args: Any, options: Any, seconds: float
) -> None:
    server.answers(status_pb2.Status(code=3))
    with pytest.raises(CallFailed):
        await call(method, *args, client={"timeout": 70}, **options)
    assert seconds - 2 < server.service.time_remaining[0] < seconds + 1


async def test_the_deadline_passes(call: Call, server: FakeServer) -> None:
    server.answers(None)
    with pytest.raises(CallFailed, match=r"^No answer from 127\.0\.0\.1:\d+ within 2 s") as failure:
        await call("call_tool", "tools.x.y.z", {}, timeout=2)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (failure.value.tool_was_run, failure.value.request_id) == (None, server.service.requests[0].request_id)


@pytest.mark.parametrize(("method", "args"), [("status", ()), ("call_tool", ("tools.x.y.z", {}))])
@pytest.mark.parametrize(
    ("target", "why"),
    [
        (UNREACHABLE, "without TLS: connection refused"),
        (f"{UNKNOWN_HOST}:1", "with TLS: the name cannot be resolved"),
        ("unix:/no/such.sock", "without TLS: .*No such file"),
    ],
)
async def test_nobody_is_there(call: Call, target: str, why: str, method: str, args: Any) -> None:
    with pytest.raises(CallFailed, match=rf"^Cannot reach .* {why}.*\. Nothing was sent\. ") as failure:
        await call(method, *args, client={"target": target})
    assert failure.value.tool_was_run is False
    assert "billed" not in str(failure.value)


async def test_tls_to_a_server_without(call: Call) -> None:
    with pytest.raises(CallFailed, match=r"Nothing was sent\. .* choose plaintext"):
        await call("status", client={"tls": True})


async def test_this_machine_is_not_reached_through_a_proxy(
    call: Call, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers(pb.StatusResponse(enabled=True))
    assert (await call("status")).enabled


async def test_an_unhealthy_server_is_not_asked(call: Call, server: FakeServer) -> None:
    server.healthy(False)
    with pytest.raises(CallFailed, match="the server isn't accepting calls at the moment"):
        await call("status")
    assert server.service.requests == []


async def test_calls_go_round_and_only_to_healthy_servers(call: Call, server: FakeServer) -> None:
    server.healthy(False)
    other = type(server)()
    try:
        other.answers(pb.StatusResponse(enabled=True))
        targets = f"ipv4:{server.target},{other.target}"
        assert (await call("status", client={"target": targets})).enabled
    finally:
        other.close()
    assert server.service.requests == []


@pytest.mark.parametrize("connections", [1, 3])
async def test_calls_go_over_several_connections(call: Call, server: FakeServer, connections: int) -> None:
    pages = [pb.ListToolsResponse(next_page_token=token) for token in ("1", "2", "3", "4", "5", "")]
    server.answers(*pages)
    await call("list_tools", client={"connections": connections})
    assert len(set(server.service.peers)) == connections
    assert server.service.peers[:3] == server.service.peers[3:]


async def test_what_cannot_be_sent_is_not(call: Call, server: FakeServer) -> None:
    with pytest.raises(InvalidInput, match=r"arguments\.x"):
        await call("call_tool", "tools.x.y.z", {"x": object()})
    assert server.service.requests == []


def test_a_client_may_be_made_before_the_loop(server: FakeServer) -> None:
    server.answers(pb.StatusResponse(enabled=True))
    client = Client(server.target)

    async def use() -> bool:
        async with client:
            return (await client.status()).enabled

    assert asyncio.run(use())


async def test_closing_what_was_never_used() -> None:
    await Client(UNREACHABLE).close()
    SyncClient(UNREACHABLE).close()


async def test_a_closed_client(server: FakeServer) -> None:
    server.answers(pb.StatusResponse(enabled=True))
    for used in (True, False):
        client, sync = Client(server.target), SyncClient(server.target)
        if used:
            await client.status()
            await asyncio.to_thread(sync.status)
        await client.close()
        sync.close()
        with pytest.raises(AgentaError, match=r"^The client is closed\. Nothing was sent\."):
            await client.status()
        with pytest.raises(AgentaError, match=r"^The client is closed\. Nothing was sent\."):
            sync.status()
        await client.close()
        sync.close()


REQUEST_ID = str(uuid4())
WAS_CLOSED = (
    r"^The client was closed\. The call may have run and may have been billed\. "
    rf"To get its result, send it again with request_id {REQUEST_ID}\.$"
)


async def test_closing_during_a_call(server: FakeServer) -> None:
    server.answers(None)
    client = Client(server.target)
    calling = asyncio.ensure_future(client.call_tool("tools.x.y.z", {}, request_id=REQUEST_ID))
    assert await asyncio.to_thread(server.service.asked.wait, 10)
    await client.close()
    with pytest.raises(CallFailed, match=WAS_CLOSED) as failure:
        await calling
    assert (failure.value.code, failure.value.tool_was_run) == (grpc.StatusCode.CANCELLED, None)
    assert failure.value.request_id == REQUEST_ID


@pytest.mark.parametrize("kind", [Client, SyncClient])
async def test_closing_while_a_call_waits_to_be_sent_again(
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    kind: type[Client | SyncClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits, delay_after = threading.Event(), Attempts.delay_after

    def noted(attempts: Attempts, failure: CallFailed) -> float | None:
        waits.set()
        return delay_after(attempts, failure)

    monkeypatch.setattr(Attempts, "delay_after", noted)
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 30})
    server.answers(refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", retry))
    client = kind(server.target, wait_for_limit=True)
    if isinstance(client, Client):
        calling = asyncio.ensure_future(client.call_tool("tools.x.y.z", {}))
    else:
        calling = asyncio.ensure_future(asyncio.to_thread(client.call_tool, "tools.x.y.z", {}))
    assert await asyncio.to_thread(waits.wait, 10)
    closing = client.close()
    if closing is not None:
        await closing
    # The server ran nothing.
    with pytest.raises(CallFailed, match=r"^The client was closed\.$") as failure:
        await asyncio.wait_for(calling, 10)
    assert failure.value.tool_was_run is False


async def test_closing_before_a_call_is_on_its_way(server: FakeServer) -> None:
    server.answers(None)
    client = Client(server.target)
    calling = asyncio.ensure_future(client.status())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(CallFailed, match=r"^The client was closed\.$"):
        await calling


def test_closing_during_a_call_in_another_thread(server: FakeServer) -> None:
    server.answers(None)
    client = SyncClient(server.target)

    def close() -> None:
        server.service.asked.wait(10)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(CallFailed, match=WAS_CLOSED):
        client.call_tool("tools.x.y.z", {}, request_id=REQUEST_ID)
    closing.join()


async def test_a_cancelled_task_stays_cancelled(server: FakeServer) -> None:
    server.answers(None)
    client = Client(server.target)
    calling = asyncio.ensure_future(client.status())
    assert await asyncio.to_thread(server.service.asked.wait, 10)
    calling.cancel()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await calling


def test_a_client_belongs_to_one_loop(server: FakeServer) -> None:
    server.answers(pb.StatusResponse(enabled=True))
    client = Client(server.target)

    async def use() -> bool:
        return (await client.status()).enabled

    assert asyncio.run(use())
    with pytest.raises(InvalidInput, match="Create one for each loop"):
        asyncio.run(use())
    asyncio.run(client.close())


async def test_metadata_and_trailers_of_one_call(call: Call, server: FakeServer) -> None:
    server.answers(pb.CallToolResponse())
    server.service.trailers = (("x-request-id", "call-7"), ("x-ratelimit-remaining", "3"))
    client = {"metadata": [("x-team", "search"), ("x-kept", "1")], "token": "t"}
    metadata = [("X-Team", "support"), ("authorization", "Bearer other")]
    result = await call("call_tool", "tools.x.y.z", {}, client=client, metadata=metadata)
    sent = server.service.metadata[0]
    assert (sent["x-team"], sent["x-kept"], sent["authorization"]) == ("support", "1", "Bearer other")
    assert result.call_id == "call-7"
    assert ("x-ratelimit-remaining", "3") in result.trailers


async def test_an_empty_request_id_is_an_error(call: Call, server: FakeServer) -> None:
    with pytest.raises(InvalidInput, match=r"^request_id: is empty"):
        await call("refine_prompt", {"messages": []}, request_id="")
    assert server.service.requests == []


async def test_many_prompts(call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> None:
    server.answers(answer(**refinement()))
    seen: list[int] = []
    templates: list[Any] = [TEMPLATE, "no JSON", *[TEMPLATE] * 5]
    outcomes = await call(
        "refine_prompts",
        iter(templates),
        guidelines="Be brief.",
        concurrency=3,
        progress=lambda index, _: seen.append(index),
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["RefinedPrompt", "InvalidInput", *["RefinedPrompt"] * 5]
    assert sorted(seen) == list(range(7))
    assert len({request.request_id for request in server.service.requests}) == 6
    assert {dict(request.arguments)["guidelines"] for request in server.service.requests} == {"Be brief."}
    with pytest.raises(InvalidInput, match="concurrency"):
        await call("refine_prompts", [], concurrency=0)


async def test_many_prompts_a_few_at_a_time(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    # Nobody is answered before two are there.
    lock, pair, running, peak = threading.Lock(), threading.Barrier(2), 0, 0

    def respond(_: object) -> pb.CallToolResponse:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        pair.wait(30)
        with lock:
            running -= 1
        return answer(**refinement())

    server.service.in_threads = True
    server.answers(respond)
    outcomes = await call("refine_prompts", [TEMPLATE] * 4, concurrency=2, timeout=60)
    assert [type(outcome).__name__ for outcome in outcomes] == ["RefinedPrompt"] * 4
    assert peak == 2


async def test_many_prompts_that_fail(call: Call, server: FakeServer) -> None:
    server.answers(status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0]))
    outcomes = await call("refine_prompts", [TEMPLATE] * 4, concurrency=2)
    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.INVALID_ARGUMENT] * 4


async def test_an_error_of_a_token_provider_ends_all(call: Call, server: FakeServer) -> None:
    def provider() -> str:
        raise LookupError("no token")

    with pytest.raises(LookupError, match="no token") as failure:
        await call("refine_prompts", [TEMPLATE] * 4, client={"token_provider": provider})
    assert failure.value.__notes__ == ["agenta_ai: token_provider failed. Nothing was sent."]
    assert server.service.requests == []
