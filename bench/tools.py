"""What a tools file costs: memory, ListTools and calls of a server with 500 tools, against one with one tool.

The stand-in runs in this process, the server in one of its own, whose processor time is counted. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import psutil
import uvloop
from google.protobuf.struct_pb2 import Struct

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.tools.tools_file.read import read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

EXAMPLE = (Path(__file__).parents[1] / "examples/tools.toml").read_text().partition("# An extraction")[0]
NAME = "tools.examples.support.classify_ticket"
AT_ONCE = 32


def tools_file(folder: Path, count: int) -> Path:
    path = folder / f"tools_{count}.toml"
    names = [NAME, *(f"{NAME}_{number:03}" for number in range(1, count))]
    path.write_text("\n".join(EXAMPLE.replace(NAME, name) for name in names))
    return path


async def measure(count: int, calls: int) -> None:
    print(f"tools: {count}")
    with tempfile.TemporaryDirectory() as folder:
        path = tools_file(Path(folder), count)
        async with StandIn() as standin:
            standin.offer(canned_prompt(tool) for tool in read(path)[:1])
            settings = {
                **os.environ,
                "AGENTA_AI_SERVICES_API_URL": standin.url,
                "AGENTA_AI_SERVICES_API_KEY": "standin-key",
                "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
                "AGENTA_AI_GRPC_TOOLS_FILE": str(path),
                "AGENTA_AI_GRPC_AUTH": "none",
                "AGENTA_AI_GRPC_LIMITS": "off",
                "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0",
                "AGENTA_AI_GRPC_LOG_FORMAT": "text",
                "AGENTA_AI_GRPC_DRAIN_SECONDS": "0",
            }
            await measure_calls(settings, calls)


async def measure_calls(settings: dict[str, str], calls: int) -> None:
    program = Path(sys.executable).with_name("agenta-ai-server")
    process = await asyncio.create_subprocess_exec(
        program, "serve", env=settings, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    found = None
    while not found:
        found = re.search(rb"listening on (\S+)", await process.stderr.readline())
    try:
        # What nobody reads would fill the pipe.
        reading = asyncio.create_task(process.stderr.read())
        server = psutil.Process(process.pid)
        print(f"  {server.memory_info().rss / 2**20:.0f} MiB after the start")
        async with grpc.aio.insecure_channel(found[1].decode()) as channel:
            stub = ToolServiceStub(channel)
            await ask(server, "ListTools, first call (describes the tools)", 1, list_tools(stub, 100))
            await ask(server, "ListTools, a page of 50", calls, list_tools(stub, 50))
            await ask(server, "CallTool", calls, call_tool(stub))
    finally:
        process.kill()
        await reading


def list_tools(stub: ToolServiceAsyncStub, size: int) -> Callable[[], Awaitable[object]]:
    return lambda: stub.ListTools(tool_service_pb2.ListToolsRequest(page_size=size))


def call_tool(stub: ToolServiceAsyncStub) -> Callable[[], Awaitable[object]]:
    arguments = Struct()
    arguments.update({"ticket": "My invoice is wrong."})
    return lambda: stub.CallTool(tool_service_pb2.CallToolRequest(name=NAME, arguments=arguments))


async def ask(server: psutil.Process, what: str, calls: int, call: Callable[[], Awaitable[object]]) -> None:
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await call()

    before, begun = seconds(server), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(min(AT_ONCE, calls))))
    spent = (seconds(server) - before) / calls * 1000
    print(f"  {what}: {spent:.2f} ms of CPU, {calls / (time.perf_counter() - begun):.0f} a second")


def seconds(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


async def main(calls: int) -> None:
    for count in (1, 500):
        await measure(count, calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    uvloop.run(main(parser.parse_args().calls))
