"""The bridge as a program, and what becomes of calls when a part of the chain fails."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import anyio
import pytest
from bridge.conftest import (
    ARGUMENTS,
    COMMAND,
    REFINE,
    REVISIONS,
    clean_environment,
    http_bridge,
    http_client,
    over_stdio,
)
from client.conftest import BOOTSTRAP, FakeServer
from google.protobuf.json_format import ParseDict

from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import mcp_types as types

    from agenta_ai_server.testing import LocalService

STEP = pb.CallToolStreamResponse().progress
STEP.text = "The tool has started."
DONE = ParseDict({"content": [{"text": "Done."}]}, pb.CallToolResponse())
LARGE = ParseDict({"content": [{"text": "x" * 1_000_000}]}, pb.CallToolResponse())


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_session_over_standard_input_and_output(service: LocalService, revision: str) -> None:
    seen: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with over_stdio(service.address, "--names", "underscore", revision=revision) as client:
        tool = (await client.list_tools()).tools[0]
        refined = await client.call_tool(tool.name, ARGUMENTS, progress_callback=on_progress)
        wrong = await client.call_tool(tool.name, {"guidelines": 3})
    assert tool.name == REFINE.replace(".", "__")
    assert not refined.is_error
    assert refined.structured_content["messages"] == [{"role": "user", "content": "Translate {{text}}"}]
    assert "The tool has started." in seen
    assert wrong.is_error
    assert wrong.meta
    assert {each["field"] for each in wrong.meta["ai.agenta/error"]["fieldViolations"]} == {
        "arguments.prompt_template_json",
        "arguments.guidelines",
    }


async def cancelled(client: Any, server: FakeServer) -> None:
    """Begin a call that never ends, cancel it once it runs, and wait until the service notices."""
    begun = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    server.answers([STEP, None])
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            await client.call_tool(REFINE, {}, progress_callback=on_progress)

        tasks.start_soon(call)
        async with asyncio.timeout(30):
            await begun.wait()
        tasks.cancel_scope.cancel()
    await server.left()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_call_that_is_cancelled_is_cancelled_at_the_service(server: FakeServer, revision: str) -> None:
    async with over_stdio(server.target, revision=revision) as client:
        await cancelled(client, server)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_so_it_is_over_http(server: FakeServer, revision: str) -> None:
    async with http_bridge(server.target) as url, http_client(url, revision) as client:
        await cancelled(client, server)


async def test_http_clients_that_never_read_hold_up_nobody(server: FakeServer) -> None:
    """Their answers wait for them until they leave, and others are served."""
    meta = {
        "progressToken": 1,
        "io.modelcontextprotocol/protocolVersion": REVISIONS[0],
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": REFINE, "arguments": {}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    request = (
        f"POST /mcp HTTP/1.1\r\nHost: localhost:1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nAccept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: {REVISIONS[0]}\r\nMcp-Method: tools/call\r\nMcp-Name: {REFINE}\r\n\r\n{body}"
    )
    server.answers(*[[STEP, LARGE]] * 5, DONE)
    async with http_bridge(server.target) as url:
        host, port = url.removeprefix("http://").removesuffix("/mcp").split(":")
        deaf = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1)
            deaf.append(writer)
            writer.write(request.encode())
            # The head comes with the first progress: the call is under way. Nothing more is read.
            assert b"200" in (await reader.read(15))
        async with http_client(url) as client:
            assert not (await client.call_tool(REFINE, {})).is_error
        for writer in deaf:
            writer.close()


async def test_a_service_that_restarts_runs_the_call_once_by_its_id(server: FakeServer) -> None:
    async with over_stdio(server.target) as client:
        server.answers([STEP, None])
        begun = asyncio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        call = asyncio.create_task(client.call_tool(REFINE, {}, progress_callback=on_progress))
        async with asyncio.timeout(30):
            await begun.wait()
        server.cut()
        after = FakeServer(server.target)
        try:
            after.answers(DONE)
            result = await call
        finally:
            after.close()
    assert not result.is_error
    assert server.service.requests[0].request_id == after.service.requests[0].request_id


class Program:
    """The bridge as a client sees it that speaks and listens as it likes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self.stdin, self.stdout = process, process.stdin, process.stdout

    async def send(self, method: str, id_: int | None = None, **params: Any) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        self.stdin.write(json.dumps(message if id_ is None else {**message, "id": id_}).encode() + b"\n")
        await self.stdin.drain()

    async def begin(self) -> None:
        await self.send(
            "initialize", 0, protocolVersion=REVISIONS[1], capabilities={}, clientInfo={"name": "t", "version": "1"}
        )
        assert b"serverInfo" in await self.stdout.readline()

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            return await self.process.wait()


@pytest.fixture
async def program(server: FakeServer) -> AsyncIterator[Program]:
    server.answers([STEP, None])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-Sc", BOOTSTRAP, *COMMAND, "--target", server.target, env=clean_environment(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    program = Program(process)
    await program.begin()
    yield program
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_a_call_whose_bridge_was_killed_is_billed_once(service: LocalService) -> None:
    """Its client repeats it by its requestId, through another bridge, and gets the result."""
    standin, request_id = service.standin, str(uuid4())
    before = standin.started
    arguments = {**ARGUMENTS, "guidelines": "standin: delay=0.5"}
    repeated = cast("types.RequestParamsMeta", {"ai.agenta/call": {"requestId": request_id}})
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--target", service.address, env=clean_environment(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    killed = Program(process)
    await killed.begin()
    meta = {**repeated, "progressToken": 1}
    await killed.send("tools/call", 1, name=REFINE, arguments=arguments, _meta=meta)
    assert b"The tool has started." in await killed.stdout.readline()
    process.kill()
    await process.communicate()
    async with over_stdio(service.address) as client:
        result = await client.call_tool(REFINE, arguments, meta=repeated)
    assert not result.is_error
    assert standin.started - before == 1


async def test_a_bridge_that_is_killed_leaves_nothing_running(server: FakeServer, program: Program) -> None:
    await program.send("tools/call", 1, name=REFINE, arguments={})
    await asyncio.to_thread(server.service.asked.wait, 10)
    program.process.kill()
    await server.left()


async def test_control_c_ends_the_bridge_and_its_calls(server: FakeServer, program: Program) -> None:
    await program.send("tools/call", 1, name=REFINE, arguments={})
    await asyncio.to_thread(server.service.asked.wait, 10)
    program.process.send_signal(signal.SIGINT)
    await server.left()
    assert await program.ended() == -signal.SIGINT


async def test_a_client_that_leaves_ends_the_bridge_and_its_calls(server: FakeServer, program: Program) -> None:
    await program.send("tools/call", 1, name=REFINE, arguments={})
    await asyncio.to_thread(server.service.asked.wait, 10)
    program.stdin.close()
    await server.left()
    assert await program.ended() == 0


@pytest.mark.parametrize(
    ("redirection", "sentence"),
    [
        (">/dev/full", "Cannot use standard input and output: No space left on device."),
        ("<&-", "Cannot read standard input: it is closed."),
    ],
    ids=["full", "closed"],
)
def test_standard_streams_that_cannot_be_used(redirection: str, sentence: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(COMMAND)} --target 127.0.0.1:1 {redirection}"],
        input='{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n',
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert (done.returncode, done.stderr) == (2, f"agenta-ai: {sentence}\n")


async def test_a_client_that_is_killed_ends_the_bridge(server: FakeServer, program: Program) -> None:
    server.answers(LARGE)
    for number in range(3):
        await program.send("tools/call", number, name=REFINE, arguments={})
    await asyncio.to_thread(server.service.asked.wait, 10)
    program.stdin.close()
    program.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert await program.ended() == 0
    assert program.process.stderr
    assert await program.process.stderr.read() == b""


async def test_a_client_that_never_reads_keeps_no_call(server: FakeServer, program: Program) -> None:
    """What isn't read stands in the bridge, and the service has long been rid of it."""
    answered = threading.Semaphore(0)

    def answer(_: object) -> pb.CallToolResponse:
        answered.release()
        return LARGE

    server.answers([STEP, answer])
    program.stdout._transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(1, 6):
        await program.send("tools/call", number, name=REFINE, arguments={}, _meta={"progressToken": number})
    for _ in range(5):
        assert await asyncio.to_thread(answered.acquire, timeout=30)
    program.process.send_signal(signal.SIGTERM)
    program.stdout._transport.resume_reading()  # type: ignore[attr-defined] # else its end isn't noticed
    assert await program.ended() == -signal.SIGTERM
