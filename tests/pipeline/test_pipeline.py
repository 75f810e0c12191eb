"""The way of a tool call, without grpc: what the interceptors decide together, and when a call ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import tool_call
from concurrency.virtual_time import virtual_time

from agenta_ai_server.auth.policy import AccessPolicy
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.arguments import LazyArguments
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import DeadlinePassed, Reason, Refused, ToolFailed
from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
from agenta_ai_server.domain.progress import Progress, Stage
from agenta_ai_server.domain.tool import ToolSet, ToolSpec
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.limits.limits import RateLimits
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.pipeline.authorize import Authorize
from agenta_ai_server.pipeline.concurrency import ConcurrencyLimit
from agenta_ai_server.pipeline.idempotency import Idempotency
from agenta_ai_server.pipeline.pipeline import Pipeline
from agenta_ai_server.pipeline.rate_limit import RateLimit

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool import RunTool
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.pipeline.pipeline import Proceed

NAME = "tools.tests.api.tool"
BURST = 10


class Tool:
    """Counts its calls, and waits for as long as it is told."""

    def __init__(self, seconds: float = 0, fails: ToolFailed | None = None) -> None:
        self.seconds = seconds
        self.fails = fails
        self.calls = 0

    async def __call__(self, call: ToolCall) -> ToolOutcome:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise self.fails
        return ToolOutcome("done", structured=dict(call.arguments))


def tools(run: RunTool) -> ToolSet:
    return ToolSet([ToolSpec(NAME, "", "", "view", {"type": "object"}, {}, run)])


def pipeline(slots: int = 10) -> Pipeline:
    clock = asyncio.get_running_loop().time
    return Pipeline(
        [
            Authorize(AccessPolicy()),
            Idempotency(InFlightCalls(LedgerStore(MemoryLedger(clock=clock))), min_seconds=1),
            RateLimit(RateLimits(None, MemoryLimiter(clock=clock))),
            ConcurrencyLimit(ConcurrencyLimiter(slots)),
        ]
    )


def call_of(tool: Tool, **fields: object) -> ToolCall:
    made = tool_call(NAME, {"a": 1}, tools=tools(tool), deadline=asyncio.get_running_loop().time() + 60)
    return replace(made, **fields)  # type: ignore[arg-type]  # the tests name fields as they are


async def reason(work: asyncio.Future[ToolOutcome] | asyncio.Task[ToolOutcome]) -> Reason:
    with pytest.raises(Refused) as refused:
        await work
    return refused.value.reason


def test_it_needs_neither_grpc_nor_protobuf() -> None:
    modules = "authorize", "concurrency", "idempotency", "pipeline", "rate_limit"
    code = "import sys; " + "; ".join(f"import agenta_ai_server.pipeline.{name}" for name in modules)
    code += "; print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'google', 'httpx', 'aiohttp')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@virtual_time
async def test_a_call_gets_its_outcome_and_a_repeat_the_stored_one() -> None:
    run, tool, request_id = pipeline(), Tool(), str(uuid4())
    first = await run.run(call_of(tool, request_id=request_id))
    assert first == ToolOutcome("done", structured={"a": 1})
    assert await run.run(call_of(tool, request_id=request_id)) == replace(first, replayed=True)
    assert tool.calls == 1


@virtual_time
async def test_a_call_that_joins_another_lets_go_of_its_arguments_while_it_waits() -> None:
    run, tool, request_id = pipeline(), Tool(seconds=5), str(uuid4())
    first, second = (call_of(tool, request_id=request_id) for _ in range(2))
    running = [asyncio.create_task(run.run(call)) for call in (first, second)]
    await asyncio.sleep(1)
    assert (first.arguments, second.arguments) == ({"a": 1}, {})
    assert [outcome.structured for outcome in await asyncio.gather(*running)] == [{"a": 1}] * 2
    assert tool.calls == 1


@virtual_time
async def test_a_call_that_waits_for_a_slot_lets_go_of_its_request() -> None:
    """It may have unknown fields, which take a megabyte."""

    class Source:
        def __call__(self, *, max_values: int = 0) -> dict[str, Json]:
            return {}

    run, tool, sources = pipeline(slots=1), Tool(seconds=5), [Source(), Source()]
    held = [weakref.ref(source) for source in sources]
    calls = [call_of(tool, lazy_arguments=LazyArguments(source)) for source in sources]
    sources.clear()
    running = [asyncio.create_task(run.run(call)) for call in calls]
    await asyncio.sleep(1)
    assert tool.calls == 1
    assert [source() is None for source in held] == [False, True]
    await asyncio.gather(*running)


@virtual_time
async def test_failures_are_outcomes_and_refusals_are_raised() -> None:
    failed = ToolFailed(Reason.UPSTREAM_TIMEOUT, "Too slow.", violations=(), retryable=False)
    outcome = await pipeline().run(call_of(Tool(fails=failed)))
    assert outcome == ToolOutcome("Too slow.", failure=ToolFailure(Reason.UPSTREAM_TIMEOUT))


@virtual_time
async def test_the_order_is_authorize_idempotency_rate_limit_concurrency() -> None:
    run, tool = pipeline(slots=1), Tool(seconds=5)
    nobody = Principal("u", permissions=frozenset())
    # A caller without permission learns nothing of the id, and uses nothing up.
    denied = call_of(tool, caller=nobody, request_id="no UUID")
    assert await reason(asyncio.ensure_future(run.run(denied))) is Reason.PERMISSION_DENIED
    # A bad id is refused before the limit counts.
    for _ in range(BURST + 1):
        bad = call_of(tool, request_id="no UUID")
        assert await reason(asyncio.ensure_future(run.run(bad))) is Reason.REQUEST_INVALID
    # A joined call takes nothing of the limit, and no slot.
    request_id = str(uuid4())
    joined = [asyncio.create_task(run.run(call_of(tool, request_id=request_id))) for _ in range(BURST + 5)]
    await asyncio.sleep(1)
    assert tool.calls == 1
    # The limit counts what then waits for a slot.
    others = [asyncio.create_task(run.run(call_of(tool))) for _ in range(BURST - 1)]
    await asyncio.sleep(0)
    assert await reason(asyncio.ensure_future(run.run(call_of(tool)))) is Reason.RATE_LIMITED
    assert tool.calls == 1
    await asyncio.gather(*joined, *others)
    assert tool.calls == BURST


@virtual_time
async def test_rate_limits_are_told_with_each_counted_call() -> None:
    call = call_of(Tool())
    await pipeline().run(call)
    assert dict(call.response_metadata).keys() == {"ratelimit", "ratelimit-policy"}


@pytest.mark.parametrize("request_id", ["", "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"])
@virtual_time
async def test_every_call_ends_at_its_deadline_whatever_the_tool_does(request_id: str) -> None:
    loop = asyncio.get_running_loop()
    call = call_of(Tool(seconds=1000), request_id=request_id, deadline=loop.time() + 5)
    with pytest.raises(DeadlinePassed):
        await pipeline().run(call)
    assert loop.time() == 6


@virtual_time
async def test_a_tools_own_timeout_is_not_taken_for_the_deadline() -> None:
    async def impatient(_: ToolCall) -> ToolOutcome:
        raise TimeoutError

    call = replace(call_of(Tool()), tools=tools(impatient))
    with pytest.raises(TimeoutError):
        await pipeline().run(call)


@virtual_time
async def test_progress_reaches_who_watches() -> None:
    run, seen = pipeline(slots=1), list[Progress]()
    busy = asyncio.create_task(run.run(call_of(Tool(seconds=5))))
    await asyncio.sleep(1)
    await run.run(call_of(Tool(), watch=seen.append))
    assert [progress.stage for progress in seen] == [Stage.QUEUED, Stage.STARTED]
    assert all(progress.text for progress in seen)
    assert [progress.queue_position for progress in seen] == [1, 0]
    await busy


@virtual_time
async def test_a_repeat_sees_what_is_happening_from_then_on() -> None:
    run, request_id = pipeline(slots=1), str(uuid4())
    first, second, third = list[Progress](), list[Progress](), list[Progress]()
    busy = asyncio.create_task(run.run(call_of(Tool(seconds=5))))
    await asyncio.sleep(1)
    tool = Tool(seconds=5)
    calls = [asyncio.create_task(run.run(call_of(tool, request_id=request_id, watch=first.append)))]
    await asyncio.sleep(1)
    # Before anything else happens, it learns what has happened last.
    calls.append(asyncio.create_task(run.run(call_of(tool, request_id=request_id, watch=second.append))))
    await asyncio.sleep(0)
    assert [progress.stage for progress in second] == [Stage.QUEUED]
    # Who leaves learns nothing more, and who joins without watching nothing at all.
    calls[0].cancel()
    calls.append(asyncio.create_task(run.run(call_of(tool, request_id=request_id))))
    await asyncio.sleep(4)
    calls.append(asyncio.create_task(run.run(call_of(tool, request_id=request_id, watch=third.append))))
    outcomes = await asyncio.gather(*calls[1:])
    assert outcomes == [ToolOutcome("done", structured={"a": 1})] * 3
    assert [progress.stage for progress in first] == [Stage.QUEUED]
    assert [progress.stage for progress in second] == [Stage.QUEUED, Stage.STARTED]
    assert [progress.stage for progress in third] == [Stage.STARTED]
    # A stored result comes without progress.
    fourth = list[Progress]()
    assert (await run.run(call_of(tool, request_id=request_id, watch=fourth.append))).replayed
    assert (fourth, tool.calls) == ([], 1)
    await busy


@virtual_time
async def test_a_refused_call_was_never_queued() -> None:
    run, seen = pipeline(slots=1), list[Progress]()
    busy = asyncio.create_task(run.run(call_of(Tool(seconds=50))))
    await asyncio.sleep(20)
    late = call_of(Tool(), watch=seen.append, deadline=asyncio.get_running_loop().time() + 2)
    assert await reason(asyncio.create_task(run.run(late))) is Reason.OVERLOADED
    assert seen == []
    await busy


@virtual_time
async def test_a_new_interceptor_is_one_class_in_the_list() -> None:
    class Stamp:
        async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
            return replace(await proceed(call), warnings=("stamped",))

    assert (await Pipeline([Stamp()]).run(call_of(Tool()))).warnings == ("stamped",)
