"""The typed method of refine_prompt, called by the stub that the Python client ships."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import grpc.aio
import pytest
from addresses import free_address
from calls import REFINE, TEMPLATE, details, refine, structured
from conftest import settings_for
from telemetry.conftest import scrape

from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2 as api_pb2
from agenta_ai.tools.agenta.api.v1.api_tools_service_pb2_grpc import ApiToolsServiceStub
from agenta_ai.v1 import error_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agenta_ai.tools.agenta.api.v1.api_tools_service_pb2_grpc import ApiToolsServiceAsyncStub
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

SERVICE = "agenta.ai.tools.agenta.api.v1.ApiToolsService"


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
def tools(channel: grpc.aio.Channel) -> ApiToolsServiceAsyncStub:
    return ApiToolsServiceStub(channel)


@pytest.fixture
def generic(channel: grpc.aio.Channel) -> ToolServiceAsyncStub:
    return ToolServiceStub(channel)


def request(request_id: str = "", **arguments: str) -> api_pb2.RefinePromptRequest:
    arguments = {"prompt_template_json": json.dumps(TEMPLATE), **arguments}
    return api_pb2.RefinePromptRequest(
        arguments=api_pb2.RefinePromptRequest.Arguments(**arguments), request_id=request_id
    )


async def test_a_refinement(tools: ApiToolsServiceAsyncStub, generic: ToolServiceAsyncStub) -> None:
    response = await tools.RefinePrompt(request())
    assert response.WhichOneof("outcome") == "result"
    other = structured(await generic.CallTool(refine()))
    assert response.result.summary == other["summary"] == response.content[0].text
    assert response.result.prompt_template_json == other["prompt_template_json"]
    assert [message.role for message in response.result.messages] == ["system", "user"]
    assert response.result.messages[1].content.string_value == other["messages"][1]["content"]
    assert len(response.meta.attempts) == 1


async def test_a_failure(tools: ApiToolsServiceAsyncStub) -> None:
    response = await tools.RefinePrompt(request(guidelines="standin: status=503"))
    assert response.WhichOneof("outcome") == "error"
    assert response.error.reason == error_pb2.ERROR_REASON_UPSTREAM_UNAVAILABLE
    assert response.error.retryable
    assert response.content[0].text


async def test_the_same_id_by_the_other_method_is_the_same_call(
    standin: StandIn, tools: ApiToolsServiceAsyncStub, generic: ToolServiceAsyncStub
) -> None:
    request_id = str(uuid4())
    typed = await tools.RefinePrompt(request(request_id, context="A bot."))
    call = refine(context="A bot.")
    call.request_id = request_id
    repeated = await generic.CallTool(call)
    assert repeated.meta.replayed
    assert structured(repeated)["prompt_template_json"] == typed.result.prompt_template_json
    assert (await tools.RefinePrompt(request(request_id, context="A bot."))).meta.replayed
    assert standin.started == 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tools.RefinePrompt(request(request_id, context="Another."))
    assert raised.value.code() is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "arguments.prompt_template_json"),
        ({"prompt_template_json": ""}, "arguments.prompt_template_json"),
        ({"prompt_template_json": "{}", "guidelines": "x" * 10_001}, "arguments.guidelines"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_paid_for(
    standin: StandIn, tools: ApiToolsServiceAsyncStub, arguments: dict[str, str], field: str
) -> None:
    wrong = api_pb2.RefinePromptRequest(arguments=api_pb2.RefinePromptRequest.Arguments(**arguments))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tools.RefinePrompt(wrong)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = details(raised.value)
    assert found["ErrorInfo"]["reason"] == "ERROR_REASON_ARGUMENTS_INVALID"
    assert [each["field"] for each in found["BadRequest"]["fieldViolations"]] == [field]
    assert standin.started == 0


async def test_unreadable_bytes(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cast("Any", channel).unary_unary(f"/{SERVICE}/RefinePrompt")(b"\xff\xff")
    assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_REQUEST_MALFORMED"


async def test_it_counts_as_a_call_of_its_tool(standin: StandIn, tmp_path: Path) -> None:
    limits, metrics = tmp_path / "limits.toml", free_address()
    limits.write_text("burst = 2\nper_minute = 1\n")
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_LIMITS="on",
        AGENTA_AI_GRPC_LIMITS_FILE=str(limits),
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
    )
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        call = ApiToolsServiceStub(channel).RefinePrompt(request())
        await call
        told = dict(list(await call.trailing_metadata() or ()))  # as a list: old versions of grpc have other mappings
        assert "r=1" in str(told["ratelimit"])
        await ToolServiceStub(channel).CallTool(refine())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ApiToolsServiceStub(channel).RefinePrompt(request())
        assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_RATE_LIMITED"
        samples = await scrape(metrics)
    assert samples["agenta_ai_calls_total"]["OK", "CallTool", "", REFINE] == 2


METHODS = [
    "agenta.ai.tools.agenta.api.v1.ApiToolsService/RefinePrompt",
    "agenta.ai.tools.agenta.api.v1.ApiToolsService/Other",
    "agenta.ai.tools.acme.support.v1.SupportToolsService/ClassifyTicket",
    "agenta.ai.tools.nonsense/x",
]


@pytest.mark.parametrize("permitted", [True, False])
async def test_what_is_hidden_looks_as_if_it_were_not_there(standin: StandIn, tmp_path: Path, permitted: bool) -> None:
    keys = tmp_path / "keys.json"
    permissions = ["edit_workflows"] if permitted else ["view"]
    key = create_key(keys, user="u", organization="o", project="p", permissions=permissions, expires=None)
    overrides = {"AGENTA_AI_GRPC_AUTH": "api_keys", "AGENTA_AI_GRPC_API_KEYS_FILE": str(keys)}
    outcomes = []
    settings = settings_for(standin, **overrides)
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            call = cast("Any", channel).unary_unary(f"/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"")
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", metadata=(("authorization", f"ApiKey {key}"),))
            outcomes.append((raised.value.code().name, raised.value.details()))
    if permitted:
        assert [code for code, _ in outcomes] == ["INVALID_ARGUMENT", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND"]
    else:
        assert len(set(outcomes)) == 1
        assert outcomes[0][0] == "PERMISSION_DENIED"


async def test_a_server_without_settings_says_so(standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ApiToolsServiceStub(channel).RefinePrompt(request())
    assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_SERVICE_DISABLED"
