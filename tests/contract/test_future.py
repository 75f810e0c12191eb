"""A version that doesn't exist yet, with all that v1 may add: today's client and server live with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import REFINE, TEMPLATE
from contract.versions import ADDED, PACKAGE, TODAY, filled, future
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import (
    CallFailed,
    Client,
    ImageContent,
    RateLimiterState,
    ServiceState,
    TextContent,
    ToolFailed,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

NEW = future()
REQUEST_ID = "0b6b8a4e-6c0f-4f0e-9c55-3d3f6f0c2a11"
REFINEMENT = {**TEMPLATE, "summary": "s", "prompt_template_json": json.dumps({**TEMPLATE, "added": 1})}


def request(**more: Any) -> Message:
    arguments = {"prompt_template_json": json.dumps(TEMPLATE)}
    return NEW.make("CallToolRequest", {"name": REFINE, "arguments": arguments, **more})


@pytest.mark.parametrize("name", TODAY)
def test_what_is_not_known_survives_being_read_and_written(name: str) -> None:
    today = TODAY[name]
    for message in filled(NEW, name):
        assert message.SerializeToString().count(b"text") >= 1, "the added field is set"
        passed_on = today.FromString(message.SerializeToString()).SerializeToString()
        assert type(message).FromString(passed_on) == message


@pytest.mark.parametrize("name", TODAY)
def test_json_of_the_future_is_read_by_who_ignores_what_is_not_known(name: str) -> None:
    today = TODAY[name]
    # The filled messages have values in their enums that today has no names for.
    known = {field.json_name for field in today.DESCRIPTOR.fields if not field.enum_type}
    for message in filled(NEW, name):
        fields = json_format.MessageToDict(message)
        read = json_format.ParseDict(fields, today(), ignore_unknown_fields=True)
        assert set(json_format.MessageToDict(read)) == set(fields) & known
        with pytest.raises(json_format.ParseError, match=r"added|ADDED"):
            json_format.ParseDict(fields, today())


async def test_our_client_reads_a_status_of_the_future() -> None:
    (answer,) = filled(NEW, "StatusResponse")
    async with NEW.server({"Status": answer}) as address, Client(address) as client:
        status = await client.status()
    assert status.enabled
    assert status.server_version == "text"
    assert status.state is ServiceState.SERVING
    assert status.rate_limiter_state is RateLimiterState.UNSPECIFIED
    assert status.tools[0].rate_limit is not None
    assert status.tools[0].tool.icons[0].src == "text"


async def test_our_client_reads_tools_of_the_future() -> None:
    answer = NEW.make("ListToolsResponse", {"tools": [{"name": "n", "added": "x"}], "cacheScope": "CACHE_SCOPE_ADDED"})
    async with NEW.server({"ListTools": answer}) as address, Client(address) as client:
        assert [tool.name for tool in await client.list_tools()] == ["n"]


async def test_our_client_passes_over_content_of_the_future() -> None:
    blocks = [{"text": "t"}, {"video": {"data": "AAE="}}, {"added": "x"}, {"image": {"data": "AAE=", "added": "x"}}]
    answer = NEW.make("CallToolResponse", {"content": blocks, "meta": {"traceId": "f", "added": "x"}, "added": "x"})
    async with NEW.server({"CallTool": answer}) as address, Client(address) as client:
        result = await client.call_tool("tools.a.b.c", {})
    assert result.content == (TextContent("t"), ImageContent(b"\0\1", ""))
    assert result.meta.trace_id == "f"


async def test_our_client_reads_a_refinement_with_more_in_it() -> None:
    answer = NEW.make("CallToolResponse", {"structuredContent": {**REFINEMENT, "added": {"x": 1}}})
    async with NEW.server({"CallTool": answer}) as address, Client(address) as client:
        refined = await client.refine_prompt(TEMPLATE)
    assert (refined.summary, refined.template) == ("s", {**TEMPLATE, "added": 1})


@pytest.mark.parametrize("retryable", [True, False])
async def test_our_client_judges_a_failure_of_the_future_by_whether_it_is_retryable(retryable: bool) -> None:
    error = {"reason": "ERROR_REASON_ADDED", "retryable": retryable, "retryDelay": "2s", "added": "x"}
    answer = NEW.make("CallToolResponse", {"content": [{"text": "Why."}], "isError": True, "error": error})
    async with NEW.server({"CallTool": answer}) as address, Client(address) as client:
        with pytest.raises(ToolFailed, match=r"Why; try again in 2 s") as failed:
            await client.refine_prompt(TEMPLATE)
    assert (failed.value.reason, failed.value.retryable, failed.value.retry_delay) == (str(ADDED), retryable, 2)


def refusal() -> status_pb2.Status:
    """A reason, a detail and a field of a detail that today nobody knows."""
    refused = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="Not on a Sunday.")
    packed = any_pb2.Any()
    packed.Pack(NEW.make("Icon", {"added": "x"}))
    packed.type_url = f"type.googleapis.com/{PACKAGE}.Calendar"
    refused.details.append(packed)
    info = error_details_pb2.ErrorInfo(reason="ERROR_REASON_ADDED", domain="agenta.ai")
    packed.Pack(info)
    packed.value += b"\xc2\x3e\x01x"  # field 1000
    refused.details.append(packed)
    return refused


async def test_our_client_knows_that_a_refusal_of_the_future_is_one() -> None:
    async with NEW.server({"CallTool": refusal()}) as address, Client(address) as client:
        with pytest.raises(CallFailed, match=r"Not on a Sunday\.") as failed:
            await client.call_tool("tools.a.b.c", {})
    assert (failed.value.reason, failed.value.tool_was_run) == ("ADDED", False)
    assert failed.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_our_server_ignores_what_a_client_of_the_future_adds(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = NEW.stub(channel)
        assert (await stub.Status(NEW.make("StatusRequest", {"added": "x"}))).enabled
        listed = await stub.ListTools(NEW.make("ListToolsRequest", {"pageSize": 1, "added": "x"}))
        assert [tool.name for tool in listed.tools] == [REFINE]
        called = await stub.CallTool(request(added="x", requestId=REQUEST_ID))
        assert not called.is_error
        # What isn't known doesn't make it another call.
        again = await stub.CallTool(request(added="y", requestId=REQUEST_ID))
        assert again.meta.replayed


async def test_a_method_of_the_future_is_unimplemented(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await NEW.stub(channel).CancelTool(request())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
