"""The bridge in front of a scripted client, of a service in this process, and as a program of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import uvicorn
from client.conftest import FakeServer, FakeService, certificates
from mcp import Client as McpClient
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from agenta_ai import Client, ToolPage
from agenta_ai.mcp import http
from agenta_ai.mcp.bridge import Bridge
from agenta_ai.mcp.names import Names
from agenta_ai.testing import FakeClient
from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai_server.testing import run_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agenta_ai_server.testing import LocalService

__all__ = ["certificates"]

# The stateless revision, and the last one that begins with a handshake.
REVISIONS = ("2026-07-28", "2025-11-25")
REFINE = "tools.agenta.api.refine_prompt"
ARGUMENTS = {"prompt_template_json": '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}'}
COMMAND = [sys.executable, "-m", "agenta_ai.cli", "mcp"]


def mode_of(revision: str) -> Any:
    """Return how the SDK's client is made to speak a revision."""
    return "legacy" if revision == "2025-11-25" else revision


def talking_to(
    client: Client, revision: str = REVISIONS[0], *, remote: bool = False, underscore: bool = False
) -> McpClient:
    """Return a client of MCP, in this process, of a bridge in front of ``client``."""
    bridge = Bridge(client, Names(underscore), lambda _: (), remote=remote)
    return McpClient(bridge.server(), mode=mode_of(revision))


def over_stdio(target: str, *options: str, revision: str = REVISIONS[0], **variables: str) -> McpClient:
    """Return a client of MCP that runs the bridge as a program, in front of the service at ``target``."""
    run = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--target", target, *options], env={**clean_environment(), **variables}
    )
    return McpClient(stdio_client(run), mode=mode_of(revision))


def clean_environment() -> dict[str, str]:
    """Return the environment without what says which server is called, and by whom."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTA_")}


@asynccontextmanager
async def http_bridge(target: str, access: http.Access | None = None) -> AsyncIterator[str]:
    """Run the bridge over HTTP in this process, and yield its URL."""
    async with Client(target) as client, Client(target, retries=0) as asking:
        application = http.app(client, asking, Names(), access or http.Access())
        running = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, timeout_graceful_shutdown=1))
        with http_listener() as listener:
            task = asyncio.create_task(running.serve(sockets=[listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            finally:
                running.should_exit = True
                await task


def http_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@asynccontextmanager
async def http_client(url: str, revision: str = REVISIONS[0], **headers: str) -> AsyncIterator[McpClient]:
    """Yield a client of MCP over HTTP that sends these headers, too."""
    async with (
        httpx2.AsyncClient(headers={name.replace("_", "-"): value for name, value in headers.items()}) as sending,
        McpClient(streamable_http_client(url, http_client=sending), mode=mode_of(revision)) as client,
    ):
        yield client


@contextmanager
def over_http(target: str, *options: str, **variables: str) -> Iterator[str]:
    """Run the bridge as a program over HTTP, and yield its URL."""
    command = [*COMMAND, "--target", target, "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(
        command, env={**clean_environment(), **variables}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        try:
            line = process.stderr.readline()
            while line and "listening on" not in line:
                line = process.stderr.readline()
            assert line, "the bridge ended"
            yield line.split()[-1]
        finally:
            process.terminate()
            process.stderr.read()


class ScriptedService(FakeClient):
    """A client of the service that answers calls of tools by a script, and always has the same pages of tools.

    Attributes:
        pages: The pages, by their tokens. Nothing else that is asked for comes from here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, ToolPage | Exception] = {"": ToolPage(ttl=300)}

    async def list_tools_page(self, page_token: str = "", **_: Any) -> ToolPage:
        page = self.pages[page_token]
        if isinstance(page, Exception):
            raise page
        return page


async def _status(*_: object) -> pb.StatusResponse:
    return pb.StatusResponse(enabled=True)


async def _no_tools(*_: object) -> pb.ListToolsResponse:
    return pb.ListToolsResponse()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A service that answers calls of tools as a test tells it to; it accepts everybody, and lists nothing."""
    monkeypatch.setattr(FakeService, "Status", _status)
    monkeypatch.setattr(FakeService, "ListTools", _no_tools)
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def fake() -> ScriptedService:
    return ScriptedService()


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    """A service that everybody may call."""
    with run_service() as running:
        yield running
