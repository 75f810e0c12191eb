"""Generated stubs over the channel of the Python clients: what these add to a call."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import TEMPLATE
from conftest import settings_for

from agenta_ai import CallFailed, Client, InvalidInput, SyncClient, ToolFailed
from agenta_ai.tools.agenta.api.v1.api_tools_service_pb2 import RefinePromptRequest
from agenta_ai.tools.agenta.api.v1.api_tools_service_pb2_grpc import ApiToolsServiceStub
from agenta_ai.typed import StubChannel
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn


def request(request_id: str = "", **arguments: str) -> RefinePromptRequest:
    known = {"prompt_template_json": json.dumps(TEMPLATE)} | arguments
    return RefinePromptRequest(arguments=RefinePromptRequest.Arguments(**known), request_id=request_id)


async def test_a_result(address: str) -> None:
    async with Client(address) as client:
        response = await ApiToolsServiceStub(client.channel()).RefinePrompt(request())
    assert response.result.summary
    assert not response.meta.replayed


async def test_a_result_without_asyncio(address: str) -> None:
    def call() -> str:
        with SyncClient(address) as client:
            return ApiToolsServiceStub(client.channel()).RefinePrompt(request()).result.summary

    assert await asyncio.to_thread(call)


async def test_errors_are_those_of_the_client(address: str) -> None:
    async with Client(address) as client:
        tools = ApiToolsServiceStub(client.channel())
        request_id = str(uuid4())
        with pytest.raises(ToolFailed) as failed:
            await tools.RefinePrompt(request(request_id, guidelines="standin: status=503"))
        assert (failed.value.reason, failed.value.retryable) == ("UPSTREAM_UNAVAILABLE", True)
        assert failed.value.request_id == request_id
        assert failed.value.call_id
        with pytest.raises(CallFailed) as refused:
            await tools.RefinePrompt(request(prompt_template_json=""))
        assert refused.value.reason == "ARGUMENTS_INVALID"
        assert refused.value.request_id
        with pytest.raises(InvalidInput, match="1,048,576"):
            await tools.RefinePrompt(request(guidelines="x" * 2**20))


async def test_a_request_id_is_kept_and_otherwise_made(standin: StandIn, address: str) -> None:
    async with Client(address) as client:
        tools = ApiToolsServiceStub(client.channel())
        request_id = str(uuid4())
        asked = request(request_id)
        assert not (await tools.RefinePrompt(asked)).meta.replayed
        assert (await tools.RefinePrompt(asked)).meta.replayed
        unnamed = request()
        for _ in range(2):
            assert not (await tools.RefinePrompt(unnamed)).meta.replayed
        assert not unnamed.request_id
    assert standin.started == 3


async def test_the_credential_the_metadata_and_the_deadline(standin: StandIn, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, user="u", organization="o", project="p", permissions=["edit_workflows"], expires=None)
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(keys))
    async with serve.running(settings) as address, Client(address, api_key=key) as client:
        tools = ApiToolsServiceStub(client.channel())
        assert (await tools.RefinePrompt(request())).result.summary
        with pytest.raises(CallFailed) as refused:
            await tools.RefinePrompt(request(), metadata=(("authorization", "ApiKey other"),))
        assert refused.value.reason == "CREDENTIALS_INVALID"
        with pytest.raises(CallFailed) as late:
            await tools.RefinePrompt(request(guidelines="standin: delay=5"), timeout=0.2)
        assert late.value.code.name == "DEADLINE_EXCEEDED"


async def test_a_server_that_is_not_there() -> None:
    async with Client("127.0.0.1:1", retries=1, timeout=5) as client:
        with pytest.raises(CallFailed) as failed:
            await ApiToolsServiceStub(client.channel()).RefinePrompt(request())
    assert failed.value.code.name == "UNAVAILABLE"
    assert failed.value.request_id


async def test_other_services_have_methods_of_the_client(address: str) -> None:
    async with Client(address) as client:
        with pytest.raises(InvalidInput, match="can't be set for one call"):
            await ApiToolsServiceStub(client.channel()).RefinePrompt(request(), wait_for_ready=True)
        with pytest.raises(InvalidInput, match="for the methods of tools"):
            client.channel().stream_stream("/x/y")
        assert isinstance(copy.copy(client.channel()), StubChannel)
