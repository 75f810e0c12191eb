"""What grpcurl can do without a file of ours, beside what docs/grpcurl.md shows."""

from __future__ import annotations

import asyncio
import json
import shutil
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from conftest import settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

pytestmark = pytest.mark.needs("grpcurl")

SERVICE = "agenta.ai.v1.ToolService"
REFINE = {
    "name": "tools.agenta.api.refine_prompt",
    "arguments": {
        "prompt_template_json": json.dumps({"messages": [{"role": "user", "content": "Please translate {{text}}"}]})
    },
}


async def grpcurl(*arguments: str) -> tuple[int, str, str]:
    program = shutil.which("grpcurl")
    assert program
    process = await asyncio.create_subprocess_exec(
        program, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def called(address: str, method: str, message: object = None, *options: str) -> Any:
    code, out, err = await grpcurl(*options, "-d", json.dumps(message or {}), address, f"{SERVICE}/{method}")
    assert code == 0, err
    return json.loads(out)


async def test_every_listed_service_is_described(address: str) -> None:
    code, out, err = await grpcurl(address, "describe")
    assert (code, err) == (0, "")
    for method in ("Status", "ListTools", "CallTool"):
        assert f"rpc {method} ( .agenta.ai.v1.{method}Request ) returns ( .agenta.ai.v1.{method}Response )" in out


async def test_describe_a_method(address: str) -> None:
    # ghz and others ask for the method's symbol, not the service's.
    code, out, err = await grpcurl(address, "describe", f"{SERVICE}.CallTool")
    assert code == 0, err
    assert "rpc CallTool ( .agenta.ai.v1.CallToolRequest )" in out
    code, _, err = await grpcurl(address, "describe", f"{SERVICE}.Nothing")
    assert code != 0
    assert "Symbol not found" in err


async def test_all_three_methods_by_reflection(address: str) -> None:
    await call_all(address)


async def test_all_three_methods_by_the_shipped_descriptor_set(standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_REFLECTION="off")) as address:
        code, _, err = await grpcurl(address, "list")
        assert code != 0
        assert "does not support the reflection API" in err
        await call_all(address, "-protoset", str(files("agenta_ai.v1") / "descriptor_set.binpb"))


async def call_all(address: str, *options: str) -> None:
    status = await called(address, "Status", None, *options)
    assert status["enabled"] is True
    assert status["state"] == "SERVICE_STATE_SERVING"
    assert status["tools"][0]["tool"]["annotations"]["destructiveHint"] is False

    listed = await called(address, "ListTools", {"page_size": 1}, *options)
    assert listed["ttl"] == "300s"
    assert listed["tools"][0]["inputSchema"]["required"] == ["prompt_template_json"]

    response = await called(address, "CallTool", REFINE, *options)
    assert "{{text}}" in response["structuredContent"]["messages"][0]["content"]
    assert response["content"][0]["text"] == response["structuredContent"]["summary"]
    assert response["meta"]["attempts"][0]["traceId"] == response["meta"]["traceId"]


WHOLE = {
    "messages": [
        {"role": "developer", "content": "Please help {{name}}.", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Please describe {{thing}}"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f"}}]},
        {"role": "tool", "content": "{}", "tool_call_id": "c1"},
    ],
    "template_format": "mustache",
    "input_keys": ["name", "thing"],
    "llm_config": {"model": "m", "top_p": 1.0},
    "fallback_configs": [{"model": "n"}],
}


async def test_the_whole_template_comes_back_to_a_client_that_has_no_code_of_ours(address: str) -> None:
    sent = {"name": REFINE["name"], "arguments": {"prompt_template_json": json.dumps(WHOLE)}}
    response = await called(address, "CallTool", sent)
    refined = json.loads(response["structuredContent"]["prompt_template_json"])
    expected = json.loads(json.dumps(WHOLE))
    expected["messages"][0]["content"] = "Help {{name}}."
    expected["messages"][1]["content"][0]["text"] = "Describe {{thing}}"
    assert refined == expected
