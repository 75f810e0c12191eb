"""What a caller finds out about the service: Status, ListTools, and a second tool that is one module."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from calls import REFINE, details, request, structured
from conftest import connected, settings_for

import agenta_ai_server.tools
from agenta_ai import __version__
from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

ECHO = "tools.tests.api.echo"


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts the module of a second tool among the tools; nothing else knows of it."""
    path = [*agenta_ai_server.tools.__path__, str(Path(__file__).parent / "more_tools")]
    monkeypatch.setattr(agenta_ai_server.tools, "__path__", path)
    return ECHO


async def test_status(stub: ToolServiceAsyncStub) -> None:
    status = await stub.Status(tool_service_pb2.StatusRequest())
    assert status.enabled
    assert status.state == tool_service_pb2.SERVICE_STATE_SERVING
    assert not status.missing_settings
    assert status.server_version == __version__
    assert 0 <= time.time() - status.start_time.ToSeconds() < 60
    assert status.rate_limiter_state == tool_service_pb2.RATE_LIMITER_STATE_OFF
    assert REFINE in [tool.tool.name for tool in status.tools]
    assert not status.tools[0].HasField("rate_limit")


async def test_list_tools(stub: ToolServiceAsyncStub) -> None:
    listed = await stub.ListTools(tool_service_pb2.ListToolsRequest())
    assert REFINE in [tool.name for tool in listed.tools]
    assert listed.next_page_token == ""
    assert listed.ttl.ToSeconds() == 300
    assert listed.cache_scope == tool_service_pb2.CACHE_SCOPE_PUBLIC
    annotations = listed.tools[0].annotations
    assert annotations.HasField("destructive_hint")
    assert not annotations.destructive_hint
    assert annotations.read_only_hint


async def test_pages(echo: str, standin: StandIn) -> None:
    names: list[str] = []
    token = ""
    async with connected(settings_for(standin)) as stub:
        while token or not names:
            page = await stub.ListTools(tool_service_pb2.ListToolsRequest(page_size=1, page_token=token))
            names += [tool.name for tool in page.tools]
            token = page.next_page_token
        whole = await stub.ListTools(tool_service_pb2.ListToolsRequest(page_size=1000))
    assert names == sorted(names) == [tool.name for tool in whole.tools]
    assert {REFINE, echo} <= set(names)


async def test_a_tool_is_one_module(echo: str, standin: StandIn) -> None:
    async with connected(settings_for(standin)) as stub:
        response = await stub.CallTool(request({"text": "hi", "times": 2}, name=echo))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(request({"text": "hi", "times": 2.5}, name=echo))
    assert structured(response) == {"text": "hihi"}
    assert response.content[0].text == "hihi"
    assert details(refused.value)["BadRequest"]["fieldViolations"][0]["field"] == "arguments.times"


async def test_a_disabled_tool_does_not_exist(echo: str, standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_DISABLED_TOOLS=f" {REFINE} ,")) as stub:
        status = await stub.Status(tool_service_pb2.StatusRequest())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(request({}))
    names = {tool.tool.name for tool in status.tools}
    assert echo in names
    assert REFINE not in names
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(refused.value)["ResourceInfo"] == {"resourceType": "tool", "resourceName": REFINE}


async def test_disabling_an_unknown_tool_is_a_fault(standin: StandIn) -> None:
    with pytest.raises(SettingsError, match=r"DISABLED_TOOLS: there is no tool tools.a.b.c. The tools are: tools"):
        async with connected(settings_for(standin, AGENTA_AI_GRPC_DISABLED_TOOLS="tools.a.b.c")):
            pass
