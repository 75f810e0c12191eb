"""What a call with progress costs beside one without: alone, and with thousands of them in flight.

The service, ``python -m bench.streams serve``, has a tool of its own, which reports so many steps in so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop
from bench.rig import CHANNEL_OPTIONS, Program, credentials, deployed, keys_in, sampled, stub_of

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai_server.assembly import tools as assembled
from agenta_ai_server.cli import main as agenta_ai_server
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.progress import Stage
from agenta_ai_server.domain.tool import ToolSpec

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.domain.tool_call import ToolCall

NAME = "tools.bench.api.steps"
CHANNELS = 16
WARM_UP = 200
TIMEOUT = 60.0
# From so many in flight on, memory tells something of a call.
MANY = 500
COLUMNS = (
    "        method", "steps", "in flight", "messages", "first, ms", "CPU ms a call", "KiB in flight",
)  # fmt: skip


async def run(call: ToolCall) -> ToolOutcome:
    """Report the steps, evenly, and answer with what a refinement of two kilobytes has."""
    arguments: dict[str, Any] = call.arguments
    steps, seconds = arguments["steps"], arguments["seconds"]
    for number in range(steps):
        call.report(Stage.RUNNING_CASES, f"Case {number + 1} of {steps}.", number, steps)
        await asyncio.sleep(seconds / steps)
    if not steps:
        await asyncio.sleep(seconds)
    return ToolOutcome("Done.", structured={"messages": [{"role": "user", "content": "x" * 2000}], "summary": "Done."})


def serve() -> int:
    """Serve the tool."""
    tool = ToolSpec(NAME, "", "", "edit_workflows", {"type": "object"}, {}, run)
    assembled.discover = lambda: {NAME: lambda _: tool}  # type: ignore[attr-defined]  # alone
    return agenta_ai_server(["serve"])


class Callers:
    """Those who call one service."""

    def __init__(self, stubs: list[ToolServiceAsyncStub], key: str) -> None:
        self._stubs = stubs
        self._key = key
        self.messages = 0
        self.firsts: list[float] = []

    async def call(self, number: int, method: str, steps: int, seconds: float) -> None:
        stub = self._stubs[number % len(self._stubs)]
        request = getattr(pb, f"{method}Request")(name=NAME)
        request.arguments.update({"steps": steps, "seconds": seconds})
        options: Any = {"metadata": credentials(self._key), "timeout": TIMEOUT}
        began = asyncio.get_running_loop().time()
        if method == "CallTool":
            await stub.CallTool(request, **options)
            return
        seen = [asyncio.get_running_loop().time() async for _ in stub.CallToolStream(request, **options)]
        self.messages += len(seen)
        self.firsts.append(seen[0] - began)

    async def all(self, count: int, in_flight: int, method: str, steps: int, seconds: float) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await self.call(number, method, steps, seconds)

        await asyncio.gather(*(work() for _ in range(in_flight)))


async def measure(count: int, in_flight: int, method: str, steps: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        (key,) = keys_in(folder)
        environment = deployed(folder, "http://127.0.0.1:9", max_in_flight=max(in_flight, 4000))
        server = Program((sys.executable, "-m", "bench.streams", "serve"), folder / "server.log", **environment)
        address = await server.start()
        stack.push_async_callback(server.stop)
        # Each channel has room for a thousand streams.
        channels = [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for _ in range(CHANNELS)]
        for channel in channels:
            await stack.enter_async_context(channel)
        callers = Callers([stub_of(channel) for channel in channels], key)
        await callers.all(WARM_UP, 32, method, steps, 0.0)
        callers.messages, callers.firsts = 0, []
        idle, used = server.resident, server.cpu_seconds
        async with sampled(lambda: server.resident) as samples:
            await callers.all(count, in_flight, method, steps, seconds)
        used = server.cpu_seconds - used
        peak = max(resident for _, resident in samples)
    # With many at once it only says how long they wait for each other.
    first = f"{statistics.median(callers.firsts) * 1000:.1f}" if callers.firsts and in_flight == 1 else "–"
    messages, kib = max(callers.messages / count, 1), (peak - idle) * 1024 / in_flight
    memory = f"{kib:.0f}" if in_flight >= MANY else "–"
    line(method, str(steps), str(in_flight), f"{messages:.1f}", first, f"{used / count * 1000:.2f}", memory)


def line(*cells: str) -> None:
    print(*(cell.rjust(len(name)) for name, cell in zip(COLUMNS, cells, strict=True)), sep="  ", flush=True)


async def main(count: int, many: int) -> None:
    line(*COLUMNS)
    for calls, in_flight, seconds in ((50, 1, 0.2), (count, 32, 0.0), (many, many, 2.0)):
        for method, steps in (("CallTool", 0), ("CallTool", 10), ("CallToolStream", 0), ("CallToolStream", 10)):
            await measure(calls, in_flight, method, steps, seconds)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        sys.exit(serve())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="calls of each kind with 32 in flight")
    parser.add_argument("--many", type=int, default=2000, help="calls that are in flight at once, for 2 s each")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.count, arguments.many))
