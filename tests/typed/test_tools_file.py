"""Typed methods of a real server's tools file: they follow the lock file, which is part of it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from calls import details
from conftest import settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

EXAMPLES = Path(__file__).parents[2] / "examples"
METHOD = "/agenta.ai.tools.examples.support.v1.SupportToolsService/ClassifyTicket"


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
