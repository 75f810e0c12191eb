"""Calls with progress as callers meet them: the same results, the same refusals, and nobody who holds anything up."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
import pytest
from calls import as_stream, details, refine, request, streamed
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.assembly import tools as assembled_tools
from agenta_ai_server.commands import serve
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.progress import Stage
from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.rpc import progress as sending
from agenta_ai_server.rpc.responses import MAX_PROGRESS_TEXT, write_progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.standin.app import StandIn

NAME = "tools.tests.api.talkative"
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
CASES = 3000


class Talkative:
    """A tool that reports its progress, and ends when it may.

    Args:
        cases: How many steps it reports.
        text: What it says of each.
    """

    def __init__(self, cases: int = 1, text: str = "One more.") -> None:
        self.cases = cases
        self.text = text
        self.refuses = False
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self, call: ToolCall) -> ToolOutcome:
        for number in range(self.cases):
            call.report(Stage.RUNNING_CASES, self.text, number + 1, self.cases)
            await asyncio.sleep(0)
        await self.may_end.wait()
        self.ended.set()
        if self.refuses:
            raise Refused(Reason.OVERLOADED, "No more.")
        return ToolOutcome("done", structured={"cases": self.cases})


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Talkative:
    tool = Talkative()
    spec = ToolSpec(NAME, "", "", "view", {"type": "object"}, {}, tool.run)
    monkeypatch.setattr(assembled_tools, "discover", lambda: {spec.name: lambda _: spec})
    return tool


@pytest.mark.parametrize(
    "guidelines", ["", "standin: status=500", "standin: answer=lossy", "standin: status=429 retry-after=7"]
)
async def test_the_result_is_that_of_a_call_without_progress(guidelines: str, stub: ToolServiceAsyncStub) -> None:
    asked = refine(guidelines=guidelines)
    alone = await stub.CallTool(asked)
    _, last = await streamed(stub, asked)
    for response in (alone, last):
        response.meta.trace_id = ""
        del response.meta.attempts[:]
    assert last == alone


@pytest.mark.parametrize(
    "asked",
    [
        request({}, name=""),
        request({}, name="tools.tests.api.nothing"),
        request({}, request_id="no UUID"),
        request({"tone": "kind"}),
        refine({"messages": []}),
    ],
)
async def test_a_refusal_is_that_of_a_call_without_progress(
    asked: pb.CallToolRequest, stub: ToolServiceAsyncStub
) -> None:
    found = []
    for call in (stub.CallTool(asked), streamed(stub, asked)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        told = details(refused.value)
        del told["RequestInfo"]
        found.append((refused.value.code(), refused.value.details(), told))
    assert found[0] == found[1]


async def test_progress_comes_while_the_tool_runs(tool: Talkative, stub: ToolServiceAsyncStub) -> None:
    tool.text = "x" * 10_000
    events = stub.CallToolStream(as_stream(request({}, name=NAME)), timeout=30)
    first, second = await anext(aiter(events)), await anext(aiter(events))
    assert first == pb.CallToolStreamResponse(
        progress=pb.Progress(stage=pb.PROGRESS_STAGE_STARTED, text="The tool has started.")
    )
    assert second.progress == pb.Progress(
        stage=pb.PROGRESS_STAGE_RUNNING_CASES, text="x" * MAX_PROGRESS_TEXT, done=1, total=1
    )
    tool.may_end.set()
    assert [event.result.content[0].text async for event in events] == ["done"]


async def test_what_many_watch_is_serialized_once(tool: Talkative, stub: ToolServiceAsyncStub) -> None:
    write_progress.cache_clear()
    asked = as_stream(request({}, name=NAME, request_id=str(uuid4())))
    watching = [aiter(stub.CallToolStream(asked, timeout=30)) for _ in range(20)]
    first = [await anext(events) for events in watching]
    tool.may_end.set()
    rest = [[event async for event in events] for events in watching]
    messages = {event.SerializeToString() for event in chain(first, *rest) if event.HasField("progress")}
    assert write_progress.cache_info().misses == len(messages)
    assert write_progress.cache_info().hits > 10


async def test_who_waits_for_a_slot_learns_its_position(standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_MAX_IN_FLIGHT="2")
    async with connected(settings) as stub:
        busy = [asyncio.ensure_future(stub.CallTool(refine(guidelines="standin: delay=1"))) for _ in range(2)]
        await standin.when(lambda: standin.in_flight == 2)
        progress, _ = await streamed(stub, refine(guidelines="standin: delay=0.5"), timeout=30)
        await asyncio.gather(*busy)
    stages = [each.stage for each in progress]
    assert stages[:2] == [pb.PROGRESS_STAGE_QUEUED, pb.PROGRESS_STAGE_STARTED]
    assert progress[0].queue_position == 1


async def test_a_reader_that_is_slow_holds_up_nothing(
    tool: Talkative, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As fast as the caller reads, so that it is the caller who is too slow.
    monkeypatch.setattr(sending, "GAP_SECONDS", 0)
    tool.cases, tool.text = CASES, "x" * MAX_PROGRESS_TEXT
    tool.may_end.set()
    async with (
        serve.running(settings_for(standin)) as address,
        grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel,
    ):
        # Without a deserializer of its own, grpc reads nothing that isn't asked for.
        events = ToolServiceStub(channel).CallToolStream(as_stream(request({}, name=NAME)), timeout=60)
        await asyncio.wait_for(tool.ended.wait(), 30)
        *progress, last = [event async for event in events]
    assert last.result.content[0].text == "done"
    assert 1 < len(progress) < CASES, "the rest was dropped"
    numbers = [event.progress.done for event in progress]
    assert numbers == sorted(numbers)


async def test_a_reader_that_leaves_holds_up_nothing(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    asked = refine(guidelines="standin: delay=1")
    asked.request_id = str(uuid4())
    events = stub.CallToolStream(as_stream(asked))
    await anext(aiter(events))
    await standin.when(lambda: standin.in_flight == 1)
    events.cancel()
    # Without progress or with it, the same id is the same call.
    progress, result = await streamed(stub, asked)
    assert not result.meta.replayed
    assert progress[0].stage == pb.PROGRESS_STAGE_ASKING
    again = await stub.CallTool(asked)
    assert again.meta.replayed
    assert standin.started == 1


async def test_a_stop_waits_for_streams(standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="20")
    async with AsyncExitStack() as server:
        address = await server.enter_async_context(serve.running(settings))
        async with grpc.aio.insecure_channel(address) as channel:
            asked = refine(guidelines="standin: delay=1")
            running = asyncio.ensure_future(streamed(ToolServiceStub(channel), asked))
            await standin.when(lambda: standin.in_flight == 1)
            await server.aclose()
            assert (await running)[1].content


async def test_the_boundary_learns_of_a_callers_end(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    events = stub.CallToolStream(as_stream(refine(guidelines="standin: delay=20")))
    await anext(aiter(events))
    await standin.when(lambda: standin.in_flight == 1)
    events.cancel()
    await asyncio.wait_for(standin.when(lambda: standin.in_flight == 0), 10)


async def test_a_refusal_comes_behind_progress_that_is_read_late(
    tool: Talkative, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GAP_SECONDS", 0)
    tool.cases, tool.text, tool.refuses = CASES, "x" * MAX_PROGRESS_TEXT, True
    tool.may_end.set()
    async with (
        serve.running(settings_for(standin)) as address,
        grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel,
    ):
        events = ToolServiceStub(channel).CallToolStream(as_stream(request({}, name=NAME)), timeout=60)
        await asyncio.wait_for(tool.ended.wait(), 30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [event async for event in events]
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_OVERLOADED"


async def test_a_refusal_comes_while_the_first_progress_is_written(tool: Talkative, stub: ToolServiceAsyncStub) -> None:
    """grpc sends the initial metadata with the first message, and mustn't be given it again with the status."""
    tool.refuses = True
    tool.may_end.set()
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await streamed(stub, request({}, name=NAME))
        assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_OVERLOADED"


async def test_a_caller_that_leaves_an_unread_result_is_no_bug(
    standin: StandIn, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    story = {"messages": [{"role": "user", "content": "Tell a story. " * 7000}]}
    async with (
        serve.running(settings_for(standin)) as address,
        grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel,
    ):
        events = ToolServiceStub(channel).CallToolStream(as_stream(refine(story)))
        await standin.when(lambda: standin.finished == 1)
        await asyncio.sleep(0.2)
        events.cancel()
    assert not [line for line in logged if "raised in core" in line or "bug" in line]


async def test_only_one_request_is_read(stub: ToolServiceAsyncStub, address: str) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield as_stream(refine()).SerializeToString()

    async with grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.stream_stream(
            "/agenta.ai.v1.ToolService/CallToolStream", response_deserializer=pb.CallToolStreamResponse.FromString
        )
        results = [event async for event in method(requests(), timeout=30) if event.HasField("result")]
    assert len(results) == 1
