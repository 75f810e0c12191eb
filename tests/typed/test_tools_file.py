"""Typed methods of a real server's tools file: they follow the lock file, which is part of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import grpc.aio
import pytest
from calls import details
from conftest import settings_for

from agenta_ai.v1 import error_pb2
from agenta_ai_server.cli import main
from agenta_ai_server.commands import serve
from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.tools import prompt_tool
from agenta_ai_server.tools.tools_file import following
from agenta_ai_server.tools.tools_file.read import read
from agenta_ai_server.typed import lock
from agenta_ai_server.typed.generation import Generation

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = """
[tools."tools.acme.support.count"]
application = "count"
description = "Counts on."
arguments = { type = "object", required = ["number"], properties.number = { type = "integer" } }
result = { type = "object", properties.number = { type = "integer" } }
"""
METHOD = "/agenta.ai.tools.examples.support.v1.SupportToolsService/ClassifyTicket"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


@pytest.fixture
def tools_file(tmp_path: Path) -> Path:
    """That of the examples."""
    return shutil.copytree(EXAMPLES, tmp_path / "examples") / "tools.toml"


async def refused(channel: grpc.aio.Channel) -> str:
    """Why an empty request is refused: by the tool's schema if its method is served."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cast("Any", channel).unary_unary(METHOD)(b"")
    return str(details(raised.value)["ErrorInfo"]["reason"])


async def test_methods_are_served_by_the_lock_file(standin: StandIn, tools_file: Path, logged: list[str]) -> None:
    lock = tools_file.with_suffix(".lock")
    content = lock.read_text()
    lock.unlink()
    settings = settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(tools_file))
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        assert await refused(channel) == "ERROR_REASON_TOOL_NOT_FOUND"
        assert any("classify_ticket: The tool is not in the lock file" in line for line in logged)
        lock.write_text(content)
        for _ in range(200):
            if (reason := await refused(channel)) == "ERROR_REASON_ARGUMENTS_INVALID":
                break
            await asyncio.sleep(0.1)
        assert reason == "ERROR_REASON_ARGUMENTS_INVALID"
        lock.write_text("broken")
        for _ in range(200):
            if any("isn't a lock file" in line for line in logged):
                break
            await asyncio.sleep(0.1)
        assert any("isn't a lock file" in line for line in logged)
        assert await refused(channel) == "ERROR_REASON_ARGUMENTS_INVALID"


async def test_a_broken_lock_file_stops_the_start(standin: StandIn, tools_file: Path) -> None:
    tools_file.with_suffix(".lock").write_text("{}")
    settings = settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(tools_file))
    with pytest.raises(SettingsError, match=r"tools\.lock isn't a lock file of this version"):
        async with serve.running(settings):
            pass


async def test_integers_that_are_no_doubles_survive(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    path.write_text(COUNT)
    assert main(["tools", "proto", "--file", str(path)]) == 0
    definitions = read(path)
    standin.offer(canned_prompt(each) for each in definitions)
    specs = [prompt_tool.spec(each, cast("Any", None)) for each in definitions]
    ((name, method),) = Generation(specs, lock.parse(lock.beside(path).read_bytes())).methods.items()
    large = 2**53 + 1
    standin.respond = in_turn(*(answers.invoked(json.dumps({"number": number})) for number in (-large, 2**63)))
    settings = settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path))
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:

        async def call(number: int, request_id: str = "") -> Any:
            sent: Any = channel.unary_unary(name, method.request.SerializeToString, method.response.FromString)
            return await sent(method.request(arguments={"number": number}, request_id=request_id))

        request_id = str(uuid4())
        assert (await call(large, request_id)).result.number == -large
        assert standin.requests[-1].inputs == {"number": large}
        again = await call(large, request_id)
        assert (again.result.number, again.meta.replayed) == (-large, True)
        # Another call, although both numbers are the same as doubles.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(large - 1, request_id)
        assert raised.value.code() is grpc.StatusCode.ABORTED
        error = (await call(1)).error
        assert error.reason == error_pb2.ERROR_REASON_UPSTREAM_OUTPUT_INVALID
        assert [violation.field for violation in error.field_violations] == ["result.number"]
