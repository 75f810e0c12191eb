"""Calls with progress, by either client: what is handed out, what is sent again, and how it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import status_pb2
from proxy import Proxy

from agenta_ai import AgentaError, CallFailed, Client, InvalidInput, Progress, ProgressStage, SyncClient, ToolFailed
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.conftest import Call, FakeServer

UNAVAILABLE = status_pb2.Status(code=14, message="down")
UNIMPLEMENTED = status_pb2.Status(code=12, message="Method not found!")
TEMPLATE = {"messages": [{"role": "user", "content": "Answer in {{language}}."}]}
REFINED = {"messages": [], "summary": "Briefer.", "prompt_template_json": json.dumps(TEMPLATE)}
QUEUED = pb.Progress(stage=pb.PROGRESS_STAGE_QUEUED, text="Third in the queue.", queue_position=3)
CASES = pb.Progress(stage=pb.PROGRESS_STAGE_RUNNING_CASES, text="Case 3 of 7.", done=2, total=7)


def waiting() -> pb.Progress:
    progress = pb.Progress(stage=pb.PROGRESS_STAGE_WAITING_FOR_RETRY, text="Again in 1.5 seconds.")
    progress.retry_delay.FromMilliseconds(1500)
    return progress


async def test_progress_and_result(call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> None:
    unknown = pb.Progress(stage=99, text="Dreaming.")  # type: ignore[arg-type]  # of a later version
    server.service.trailers = (("x-request-id", "call-7"),)
    server.answers([QUEUED, CASES, waiting(), unknown, answer(content=[{"text": "Done."}])])
    *progress, result = await call(
        "stream_tool", "tools.x.y.z", {"n": 1}, request_id="r", rerun_if_outcome_unknown=True
    )
    assert progress == [
        Progress(ProgressStage.QUEUED, "Third in the queue.", queue_position=3),
        Progress(ProgressStage.RUNNING_CASES, "Case 3 of 7.", 2, 7),
        Progress(ProgressStage.WAITING_FOR_RETRY, "Again in 1.5 seconds.", retry_delay=1.5),
        Progress(ProgressStage.UNSPECIFIED, "Dreaming."),
    ]
    assert (result.text, result.request_id, result.call_id) == ("Done.", "r", "call-7")
    (request,) = server.service.requests
    assert isinstance(request, pb.CallToolStreamRequest)
    assert (request.name, request.rerun_if_outcome_unknown) == ("tools.x.y.z", True)


async def test_a_refinement_reports_its_progress(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    seen: list[Progress] = []
    server.answers([QUEUED, answer(structured_content=REFINED)], [answer(is_error=True, content=[{"text": "No."}])])
    refined = await call("refine_prompt", TEMPLATE, on_progress=seen.append)
    assert (refined.summary, refined.original) == ("Briefer.", TEMPLATE)
    assert [progress.queue_position for progress in seen] == [3]
    with pytest.raises(ToolFailed, match="No"):
        await call("refine_prompt", TEMPLATE, on_progress=seen.append)


async def test_any_tool_reports_its_progress(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    seen: list[Progress] = []
    server.answers([QUEUED, answer(content=[{"text": "Done."}])])
    assert (await call("call_tool", "tools.x.y.z", {}, on_progress=seen.append)).text == "Done."
    assert [progress.queue_position for progress in seen] == [3]


async def test_nothing_is_sent_that_can_not_be(call: Call, server: FakeServer) -> None:
    with pytest.raises(InvalidInput):
        await call("stream_tool", "tools.x.y.z", {"n": object()})
    assert server.service.requests == []


async def test_a_broken_stream_is_sent_again_as_the_same_call(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(UNAVAILABLE, [QUEUED, UNAVAILABLE], [CASES, answer(content=[{"text": "Done."}])])
    *progress, result = await call("stream_tool", "tools.x.y.z", {})
    assert [event.stage for event in progress] == [ProgressStage.QUEUED, ProgressStage.RUNNING_CASES]
    assert {request.request_id for request in server.service.requests} == {result.request_id}
    assert len(server.service.requests) == 3


async def test_a_connection_lost_in_mid_stream(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    seen: list[Progress] = []
    came = threading.Event()

    def see(progress: Progress) -> None:
        seen.append(progress)
        came.set()

    server.answers([QUEUED, None], answer(content=[{"text": "Done."}]))
    async with Proxy(server.target) as proxy:
        client = {"target": proxy.target}
        calling = asyncio.ensure_future(call("call_tool", "tools.x.y.z", {}, client=client, on_progress=see))
        assert await asyncio.to_thread(came.wait, 10)
        proxy.cut()
        result = await calling
    assert [progress.stage for progress in seen] == [ProgressStage.QUEUED]
    assert result.text == "Done."


@pytest.mark.parametrize(("retries", "sent"), [(None, 5), (1, 2), (0, 1)])
async def test_a_stream_has_the_retries_of_a_call(
    retries: int | None, sent: int, call: Call, server: FakeServer
) -> None:
    server.answers([QUEUED, (UNAVAILABLE, 1)])
    with pytest.raises(CallFailed) as failure:
        await call("stream_tool", "tools.x.y.z", {}, retries=retries)
    assert len(server.service.requests) == sent
    assert failure.value.tool_was_run is None
    assert failure.value.request_id in str(failure.value)


async def test_a_server_that_is_older_than_the_method(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    seen: list[Progress] = []
    server.answers(UNIMPLEMENTED, answer(structured_content=REFINED))
    assert (await call("refine_prompt", TEMPLATE, on_progress=seen.append)).summary == "Briefer."
    streamed, single = server.service.requests
    assert isinstance(single, pb.CallToolRequest)
    assert single.request_id == streamed.request_id
    assert seen == []


async def test_an_older_server_after_a_stream_that_broke(
    call: Call, server: FakeServer, refused: Callable[..., status_pb2.Status]
) -> None:
    limited = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Rate limited.")
    server.answers([QUEUED, (UNAVAILABLE, 1)], UNIMPLEMENTED, limited)
    with pytest.raises(CallFailed, match="may have been billed") as failure:
        await call("stream_tool", "tools.x.y.z", {})
    assert failure.value.tool_was_run is None
    assert len(server.service.requests) == 3


async def test_a_server_that_knows_neither_method(call: Call, server: FakeServer) -> None:
    server.answers(UNIMPLEMENTED)
    with pytest.raises(CallFailed, match=r"has no agenta\.ai\.v1\.ToolService"):
        await call("stream_tool", "tools.x.y.z", {})


async def test_a_stream_without_a_result(call: Call, server: FakeServer) -> None:
    server.answers([QUEUED, ...])
    with pytest.raises(AgentaError, match="has a form that this client doesn't know"):
        await call("stream_tool", "tools.x.y.z", {})


async def test_a_deadline_ends_a_stream(call: Call, server: FakeServer) -> None:
    server.answers([QUEUED, None])
    with pytest.raises(CallFailed) as failure:
        await call("stream_tool", "tools.x.y.z", {}, timeout=0.5)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_is_closed_ends_its_streams(server: FakeServer) -> None:
    server.answers([QUEUED, None])
    client = Client(server.target)
    events = client.stream_tool("tools.x.y.z", {})
    await anext(events)
    closing = asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(client.close()))
    with pytest.raises(CallFailed, match="The client was closed"):
        await anext(events)
    closing.cancel()


def test_a_sync_client_that_is_closed_ends_its_streams(server: FakeServer) -> None:
    server.answers([QUEUED, None])
    client = SyncClient(server.target)
    events = client.stream_tool("tools.x.y.z", {})
    next(events)
    closing = threading.Timer(0.1, client.close)
    closing.start()
    with pytest.raises(CallFailed, match="The client was closed"):
        next(events)
    closing.join()


async def test_who_leaves_the_loop_ends_the_call(server: FakeServer) -> None:
    server.answers([QUEUED, None])
    async with Client(server.target) as client:
        async for _ in client.stream_tool("tools.x.y.z", {}):
            break
        await server.left()


def test_who_leaves_the_loop_of_a_sync_client_ends_the_call(server: FakeServer) -> None:
    server.answers([QUEUED, None])
    with SyncClient(server.target) as client:
        for _ in client.stream_tool("tools.x.y.z", {}):
            break
        asyncio.run(server.left())


async def test_a_task_that_is_cancelled_stays_cancelled(server: FakeServer) -> None:
    server.answers([QUEUED, None])
    async with Client(server.target) as client:
        seen: list[Any] = []
        begun = asyncio.Event()

        async def work() -> None:
            async for event in client.stream_tool("tools.x.y.z", {}):
                seen.append(event)
                begun.set()

        task = asyncio.create_task(work())
        async with asyncio.timeout(10):
            await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left()
    assert len(seen) == 1
