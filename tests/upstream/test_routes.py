from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from calls import refine, structured, tool_call
from conftest import connected, settings_for
from upstream.fakes import Clock

from agenta_ai.v1 import error_pb2
from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.agenta.completions import AgentaCompletionService, AgentaConfig
from agenta_ai_server.domain.errors import Reason, UpstreamFailed
from agenta_ai_server.domain.listener import CallListener
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.received import INVOKE_PATH, RUN_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenta_ai_server.domain.call import Call, UpstreamRequest

    Make = Callable[..., AgentaCompletionService]

INPUTS = {"__ag_prompt_template_json": '{"messages": []}', "__ag_guidelines": "", "__ag_context": ""}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Tracing(CallListener):
    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        request.headers["traceparent"] = PARENT


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(standin: StandIn, clock: Clock) -> AsyncIterator[Make]:
    services: list[AgentaCompletionService] = []

    def make(**given: Any) -> AgentaCompletionService:
        config = AgentaConfig(api_url=standin.url, api_key="standin-key", environment="production", **given)
        services.append(AgentaCompletionService(config, Tracing(), clock=clock))
        return services[-1]

    yield make
    for service in services:
        await service.aclose()


async def complete(service: AgentaCompletionService) -> str:
    return (await service.complete(DeployedPrompt("ai-refine"), INPUTS, tool_call())).attempt.trace_id


def paths(standin: StandIn) -> list[str]:
    return [received.path for received in standin.requests]


async def test_the_newer_route_where_it_exists(standin: StandIn, make: Make) -> None:
    service = make()
    assert [await complete(service) for _ in range(2)] == [TRACE, TRACE], "the caller's trace goes on in Agenta"
    assert paths(standin) == [INVOKE_PATH] * 2
    assert json.loads(standin.requests[0].body) == {
        "data": {"inputs": INPUTS},
        "references": {"application": {"slug": "ai-refine"}, "environment": {"slug": "production"}},
    }
    assert standin.requests[0].headers["accept"] == "application/json"


async def test_an_older_agenta_is_found_out_once_a_minute(standin: StandIn, make: Make, clock: Clock) -> None:
    standin.lacks = frozenset({INVOKE_PATH})
    service = make()
    for _ in range(3):
        assert await complete(service) not in ("", TRACE)
    assert paths(standin) == [INVOKE_PATH, RUN_PATH, RUN_PATH, RUN_PATH]
    clock.now += 60
    await complete(service)
    assert paths(standin)[4:] == [INVOKE_PATH, RUN_PATH]


async def test_an_updated_agenta_is_noticed_although_it_has_both_routes(
    standin: StandIn, make: Make, clock: Clock
) -> None:
    standin.lacks = frozenset({INVOKE_PATH})
    service = make()
    await complete(service)
    standin.lacks = frozenset()
    assert await complete(service) != TRACE
    clock.now += 60
    assert [await complete(service) for _ in range(2)] == [TRACE, TRACE]


async def test_it_is_looked_at_again_when_the_route_stops_working(standin: StandIn, make: Make) -> None:
    standin.lacks = frozenset({INVOKE_PATH})
    service = make()
    await complete(service)
    standin.lacks = frozenset({RUN_PATH})
    assert [await complete(service) for _ in range(2)] == [TRACE, TRACE]
    assert paths(standin)[2:] == [RUN_PATH, INVOKE_PATH, INVOKE_PATH]


async def test_a_failure_on_the_other_route_is_its_own_and_shows_no_route_that_works(
    standin: StandIn, make: Make
) -> None:
    standin.lacks = frozenset({INVOKE_PATH})
    standin.respond = in_turn(Fault(cause="not-deployed"))
    service = make()
    with pytest.raises(UpstreamFailed) as caught:
        await complete(service)
    assert caught.value.reason is Reason.UPSTREAM_MISCONFIGURED
    await complete(service)
    assert paths(standin) == [INVOKE_PATH, RUN_PATH, INVOKE_PATH, RUN_PATH]


@pytest.mark.parametrize("route", ["auto", "invoke", "run"])
async def test_a_proxy_that_doesnt_find_agenta_is_asked_again(route: str, standin: StandIn) -> None:
    page = Fault(status=404, body="plain")
    standin.respond = in_turn(*[page] * (2 if route == "auto" else 1))
    settings = settings_for(standin, AGENTA_AI_GRPC_UPSTREAM_ROUTE=route, AGENTA_AI_GRPC_RETRIES="1")
    async with connected(settings) as stub:
        structured(await stub.CallTool(refine()))
        standin.respond = in_turn(*[page] * 4)
        response = await stub.CallTool(refine())
    assert (response.error.reason, response.error.retryable) == (
        error_pb2.ERROR_REASON_UPSTREAM_UNAVAILABLE,
        True,
    )
    assert "check the address" in response.content[0].text


async def test_where_there_is_no_route_the_address_is_wrong(standin: StandIn, make: Make) -> None:
    standin.lacks = frozenset({INVOKE_PATH, RUN_PATH})
    with pytest.raises(UpstreamFailed, match="check the address") as caught:
        await complete(make())
    assert (caught.value.reason, caught.value.may_have_run) == (Reason.UPSTREAM_REJECTED, False)
    assert len(caught.value.attempts) == 1


async def test_an_unknown_model_is_no_missing_route(standin: StandIn, make: Make) -> None:
    standin.respond = in_turn(Fault(cause="unknown-model"))
    with pytest.raises(UpstreamFailed) as caught:
        await complete(make())
    assert caught.value.reason is Reason.UPSTREAM_MISCONFIGURED
    assert paths(standin) == [INVOKE_PATH]


@pytest.mark.parametrize(("route", "path"), [("run", RUN_PATH), ("invoke", INVOKE_PATH)])
async def test_the_route_can_be_set(route: str, path: str, standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_UPSTREAM_ROUTE=route)) as stub:
        structured(await stub.CallTool(refine()))
        standin.lacks = frozenset({path})
        assert (await stub.CallTool(refine())).is_error
    assert paths(standin) == [path, path]


async def test_a_callers_trace_leads_to_the_model(standin: StandIn) -> None:
    async with connected(settings_for(standin)) as stub:
        response = await stub.CallTool(refine(), metadata=[("traceparent", PARENT)])
    assert standin.requests[0].headers["traceparent"].split("-")[1] == TRACE
    assert response.meta.trace_id == TRACE
