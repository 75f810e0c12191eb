"""Outages of a real Agenta, replayed: what callers get while each lasts, with 20 calls in flight, and after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from calls import details, reason, refine
from conftest import connected, settings_for
from faults import proxy as faults
from faults.suite import BREAKER, RETRIES, RETRY_UNSAFE, served

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from faults.proxy import Link, Proxy
    from faults.suite import Caller

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.standin.received import Received

CALLS = 20
SETTINGS = {RETRIES: "2", BREAKER: "on"}


@dataclass(frozen=True)
class Row:
    """One outage that shows in what Agenta answers.

    Attributes:
        event: What happened.
        fault: What Agenta answered, or the proxy in front of it.
        told: Reason and ``retryable``.
        words: What the sentence says.
        sent_again: Whether requests are sent again, as far as the budget of retries goes.
    """

    event: str
    fault: Fault
    told: tuple[str, bool]
    words: str
    sent_again: bool = False


ROWS = [
    Row(
        "services restarted gracefully behind a proxy",
        Fault(status=502, body="html"),
        ("UPSTREAM_FAILED", False),
        "A proxy in front of the completion service got no answer from it (HTTP 502)",
    ),
    Row(
        "a proxy that is less patient than the model",
        Fault(status=504, body="html"),
        ("UPSTREAM_TIMEOUT", False),
        "A proxy in front of the completion service didn't wait long enough",
    ),
    Row(
        "Agenta's API down, services up: the run",
        Fault(cause="api-down"),
        ("UPSTREAM_FAILED", False),
        "Agenta's services can't reach Agenta's API (HTTP 500). Nothing was billed.",
    ),
    Row(
        "Agenta's API down, services up: the credentials",
        Fault(status=503),
        ("UPSTREAM_UNAVAILABLE", True),
        "The completion service is unavailable (HTTP 503). Nothing was billed.",
        sent_again=True,
    ),
    Row(
        "Agenta's Redis down",
        Fault(cause="no-model-credential"),
        ("UPSTREAM_MISCONFIGURED", False),
        "Agenta has no credential for the model",
    ),
    Row(
        "the model's endpoint down",
        Fault(cause="provider-down"),
        ("UPSTREAM_FAILED", False),
        "The model's provider failed, even after Agenta's own retries (HTTP 500)",
    ),
    Row(
        "the model's provider overloaded",
        Fault(cause="provider-busy", retry_after="1"),
        ("UPSTREAM_FAILED", False),
        "The model's provider failed, even after Agenta's own retries (HTTP 503)",
    ),
    Row(
        "the prompt isn't deployed",
        Fault(cause="not-deployed"),
        ("UPSTREAM_MISCONFIGURED", False),
        "The prompt behind this tool isn't deployed in Agenta",
    ),
]


async def at_once(caller: Caller, calls: int = CALLS) -> list[CallToolResponse]:
    return await asyncio.gather(*(caller.call(20) for _ in range(calls)))


def told(response: CallToolResponse) -> tuple[str, bool]:
    return reason(response), response.error.retryable


@pytest.mark.parametrize("row", ROWS, ids=[row.event for row in ROWS])
async def test_while_it_lasts_and_after(row: Row, proxy: Proxy, standin: StandIn) -> None:
    standin.fault = row.fault
    # Without the breaker, so that each of the calls is told what happened.
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        for response in await at_once(caller):
            assert told(response) == row.told
            assert row.words in response.content[0].text
        assert (standin.started > CALLS) == row.sent_again
        standin.fault = Fault()
        assert not any(response.is_error for response in await at_once(caller))


async def test_a_restart_behind_a_proxy_is_ridden_out_by_paying_twice(proxy: Proxy, standin: StandIn) -> None:
    left = 5

    async def respond(_: Received) -> Fault | None:
        nonlocal left
        left -= 1
        return Fault(status=502, body="html") if left >= 0 else None

    standin.respond = respond
    async with served(proxy, standin, **{RETRIES: "5", RETRY_UNSAFE: "true"}) as caller:
        assert not any(response.is_error for response in await at_once(caller))
    assert standin.started == CALLS + 5


async def test_workers_killed(proxy: Proxy, standin: StandIn) -> None:
    lost = 5

    async def kill(link: Link) -> None:
        nonlocal lost
        lost -= 1
        await (faults.reset_before_the_head if lost >= 0 else faults.pass_on)(link)

    proxy.choose = lambda: kill
    async with served(proxy, standin, **SETTINGS) as caller:
        responses = await at_once(caller)
    failed = [told(response) for response in responses if response.is_error]
    assert failed == [("UPSTREAM_BROKEN", False)] * 5
    assert standin.started == CALLS, "none was sent again, for each may have been billed"


async def test_agentas_api_down_for_those_it_authenticates(standin: StandIn) -> None:
    standin.permissions.fault = Fault(status=503)
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="agenta", AGENTA_AI_GRPC_AGENTA_ALLOW="*")
    async with connected(settings) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(
                tool_service_pb2.CallToolRequest(), metadata=[("authorization", "ApiKey standin-key")], timeout=10
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_AUTHORITY_UNAVAILABLE"
    assert "RetryInfo" in details(refused.value)


async def test_agentas_redis_down_most_calls_are_slow(proxy: Proxy, standin: StandIn) -> None:
    arrived = 0

    async def respond(_: Received) -> Fault:
        nonlocal arrived
        arrived += 1
        return Fault(cause="no-model-credential") if arrived % 5 == 0 else Fault(delay=0.5)

    standin.respond = respond
    async with served(proxy, standin, **SETTINGS) as caller:
        responses = await at_once(caller)
    failed = [told(response) for response in responses if response.is_error]
    assert failed == [("UPSTREAM_MISCONFIGURED", False)] * (CALLS // 5)


async def test_the_proxy_down(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        await proxy.refuse()
        responses = await at_once(caller, 5)
    assert {told(response) for response in responses} == {("UPSTREAM_UNREACHABLE", True)}
    assert {len(response.meta.attempts) for response in responses} == {3}
    assert standin.started == 0


async def test_a_model_that_takes_longer_than_calls_may(proxy: Proxy, standin: StandIn) -> None:
    standin.fault = Fault(delay=5)
    async with served(proxy, standin, AGENTA_AI_GRPC_MAX_CALL_SECONDS="2") as caller:
        responses = await at_once(caller)
    assert {told(response) for response in responses} == {("UPSTREAM_TIMEOUT", False)}


async def test_a_prompt_that_is_not_deployed_does_not_open_the_breaker(proxy: Proxy, standin: StandIn) -> None:
    standin.fault = Fault(cause="not-deployed")
    chosen = {"AGENTA_AI_SERVICES_API_URL": proxy.url, **SETTINGS}
    async with connected(settings_for(standin, **chosen)) as stub:
        for _ in range(30):
            response = await stub.CallTool(refine(), timeout=20)
            assert told(response) == ("UPSTREAM_MISCONFIGURED", False)
        status = await stub.Status(tool_service_pb2.StatusRequest())
    assert status.state == tool_service_pb2.SERVICE_STATE_SERVING
    assert standin.started == 30
