"""Repeats of a request_id as callers meet them: what is paid once, what is run again, and what is refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
import pytest
from calls import REFINE, details, reason, refine, request, streamed, tool_call
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.domain.callers import Callers
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.pipeline.idempotency import Idempotency
from agenta_ai_server.rpc import responses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.domain.callers import Waiter
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.idempotency.store import Claim
    from agenta_ai_server.standin.app import StandIn


def named(asked: tool_service_pb2.CallToolRequest, request_id: str) -> tool_service_pb2.CallToolRequest:
    named = tool_service_pb2.CallToolRequest()
    named.CopyFrom(asked)
    named.request_id = request_id
    return named


@pytest.fixture
def answer_when_joined(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the stand-in answer when so many callers wait for a run, or else after a while."""
    join = Callers.join

    def answer_when_joined(count: int) -> None:
        all_joined = asyncio.Event()

        def noted(callers: Callers, waiter: Waiter) -> None:
            join(callers, waiter)
            if len(callers.waiters) == count:
                all_joined.set()

        async def respond(_: object) -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(all_joined.wait(), 20)

        monkeypatch.setattr(Callers, "join", noted)
        standin.respond = respond

    return answer_when_joined


async def test_a_repeat_gets_the_stored_result(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    request_id = str(uuid4())
    first = await stub.CallTool(named(refine(), request_id))
    second = await stub.CallTool(named(refine(), request_id.upper()))
    assert (first.meta.replayed, second.meta.replayed) == (False, True)
    second.meta.replayed = False
    assert first == second
    assert standin.started == 1


async def test_repeats_while_it_runs_join_it(
    standin: StandIn, stub: ToolServiceAsyncStub, answer_when_joined: Callable[[int], None]
) -> None:
    answer_when_joined(50)
    asked = named(refine(), str(uuid4()))
    answers = await asyncio.gather(*(stub.CallTool(asked) for _ in range(50)))
    assert standin.started == 1
    assert all(answer == answers[0] for answer in answers)
    assert not answers[0].meta.replayed


async def test_callers_that_share_an_outcome_share_its_bytes(
    stub: ToolServiceAsyncStub, answer_when_joined: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_when_joined(20)
    written: list[ToolOutcome] = []
    make_response = responses._response

    def counted(outcome: ToolOutcome) -> tool_service_pb2.CallToolResponse:
        written.append(outcome)
        return make_response(outcome)

    monkeypatch.setattr(responses, "_response", counted)
    asked = named(refine(), str(uuid4()))
    unary = asyncio.gather(*(stub.CallTool(asked) for _ in range(10)))
    streams = asyncio.gather(*(streamed(stub, asked) for _ in range(10)))
    first, *others = [*await unary, *(result for _, result in await streams)]
    assert all(other == first for other in others)
    assert len(written) == 2, "one for each method"


async def test_without_a_request_id_each_call_is_one(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    await stub.CallTool(refine())
    await stub.CallTool(refine())
    assert standin.started == 2


@pytest.mark.parametrize(
    "other", [refine(guidelines="Be brief."), request({}), refine({"messages": [{"role": "user", "content": "Hi"}]})]
)
async def test_an_id_stands_for_one_call(
    other: tool_service_pb2.CallToolRequest, standin: StandIn, stub: ToolServiceAsyncStub
) -> None:
    request_id = str(uuid4())
    await stub.CallTool(named(refine(), request_id))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(named(other, request_id))
    assert refused.value.code() is grpc.StatusCode.ABORTED
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_REQUEST_ID_REUSED"
    assert standin.started == 1


@pytest.mark.parametrize(
    ("fault", "why", "paid"),
    [
        # Send the same id again: nothing was bought.
        ("status=503", "UPSTREAM_UNAVAILABLE", 2),
        ("status=429", "UPSTREAM_RATE_LIMITED", 2),
        ("status=424", "UPSTREAM_PROVIDER_FAILED", 2),
        # It may have been, or it was.
        ("answer=lossy", "UPSTREAM_OUTPUT_INVALID", 1),
        ("status=500", "UPSTREAM_FAILED", 1),
        ("close=body", "UPSTREAM_BROKEN", 1),
    ],
)
async def test_what_is_run_again(fault: str, why: str, paid: int, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    asked = named(refine(guidelines=f"standin: {fault}"), str(uuid4()))
    first = await stub.CallTool(asked)
    second = await stub.CallTool(asked)
    assert reason(first) == reason(second) == why
    assert first.error.retryable is (paid == 2)
    assert second.meta.replayed is (paid == 1)
    assert standin.started == paid


async def test_a_refusal_is_not_stored(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    request_id = str(uuid4())
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.CallTool(named(request({"prompt_template_json": 7}), request_id))
    response = await stub.CallTool(named(refine(), request_id))
    assert not response.is_error
    assert not response.meta.replayed


async def test_replays_and_joins_take_nothing_of_the_rate_limit(
    standin: StandIn, answer_when_joined: Callable[[int], None], tmp_path: Path
) -> None:
    answer_when_joined(5)
    limits = tmp_path / "limits.toml"
    limits.write_text("burst = 1\nper_minute = 1\n")
    more = {"AGENTA_AI_GRPC_LIMITS": "on", "AGENTA_AI_GRPC_LIMITS_FILE": str(limits)}
    asked = named(refine(), str(uuid4()))
    async with connected(settings_for(standin, **more)) as stub:
        await asyncio.gather(*(stub.CallTool(asked) for _ in range(5)))
        assert (await stub.CallTool(asked)).meta.replayed
    assert standin.started == 1


async def test_ids_belong_to_their_principal(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = [
        create_key(path, user=user, organization="o", project="p", permissions=["edit_workflows"], expires=None)
        for user in ("one", "two")
    ]
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(path))
    asked = named(refine(), str(uuid4()))
    async with connected(settings) as stub:
        answers = [await stub.CallTool(asked, metadata=[("authorization", f"ApiKey {key}")]) for key in keys]
    assert [answer.meta.replayed for answer in answers] == [False, False]
    assert standin.started == 2


async def test_the_run_goes_on_without_its_first_caller(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    asked = named(refine(guidelines="standin: delay=1"), str(uuid4()))
    first = stub.CallTool(asked, timeout=5)
    running = asyncio.ensure_future(first)
    await standin.when(lambda: standin.in_flight == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    response = await stub.CallTool(asked)
    assert not response.is_error
    assert standin.started == 1


async def test_a_run_that_nobody_waits_for_is_closed(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    call = stub.CallTool(named(refine(guidelines="standin: delay=50"), str(uuid4())))
    running = asyncio.ensure_future(call)
    await standin.when(lambda: standin.in_flight == 1)
    left = asyncio.get_running_loop().time()
    call.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with asyncio.timeout(20):
        await standin.when(lambda: standin.in_flight == 0)
    assert asyncio.get_running_loop().time() - left > 1.8


async def test_each_caller_waits_by_its_own_deadline(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    asked = named(refine(guidelines="standin: delay=2"), str(uuid4()))
    patient = asyncio.ensure_future(stub.CallTool(asked, timeout=30))
    await standin.when(lambda: standin.in_flight == 1)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.CallTool(asked, timeout=0.3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not (await patient).is_error
    assert standin.started == 1


@pytest.mark.parametrize(
    ("least", "timeout", "said"),
    [("50", 40, "Less than 50 seconds left"), ("1", 0.9, "Less than 1 second left")],
)
async def test_what_could_not_be_waited_for_is_not_begun(
    least: str, timeout: float, said: str, standin: StandIn
) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS=least)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(named(refine(), str(uuid4())), timeout=timeout)
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_DEADLINE_TOO_SHORT"
    assert str(refused.value.details()).startswith(said)
    assert standin.started == 0


class SlowStore(LedgerStore):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__(MemoryLedger())
        self.answers = asyncio.Event()

    async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
        await self.answers.wait()
        return await super().claim(key, fingerprint, waited=waited, rerun=rerun)


async def test_who_has_time_is_not_refused_for_one_who_had_not() -> None:
    store = SlowStore()
    idempotency = Idempotency(InFlightCalls(store), min_seconds=1)
    request_id = str(uuid4())

    async def proceed(call: ToolCall) -> ToolOutcome:
        return ToolOutcome(call.name)

    now = asyncio.get_running_loop().time()
    calls = [tool_call(deadline=now + seconds, request_id=request_id) for seconds in (0.9, 60)]
    callers = [asyncio.create_task(idempotency.intercept(call, proceed)) for call in calls]
    await asyncio.sleep(0)
    store.answers.set()
    assert await asyncio.gather(*callers) == [ToolOutcome(REFINE)] * 2


async def test_storing_can_be_switched_off(standin: StandIn) -> None:
    asked = named(refine(), str(uuid4()))
    async with connected(settings_for(standin, AGENTA_AI_GRPC_RESULT_TTL_SECONDS="0")) as stub:
        answers = [await stub.CallTool(asked) for _ in range(2)]
    assert not any(answer.meta.replayed for answer in answers)
    assert standin.started == 2


async def test_a_caller_is_told_why_in_time_and_not_by_its_deadline(standin: StandIn) -> None:
    asked = named(refine(guidelines="standin: status=429 retry-after=5"), str(uuid4()))
    async with connected(settings_for(standin, AGENTA_AI_GRPC_RETRIES="2")) as stub:
        answer = await stub.CallTool(asked, timeout=5)
    assert (reason(answer), answer.error.retryable) == ("UPSTREAM_RATE_LIMITED", True)
    assert standin.started == 1
