"""What the bridge to MCP takes: to start, in memory, and for each call, beside a call of the service itself.

The client is bare, so that what is measured is the bridge: lines of JSON over standard input and output, or requests
over kept connections. The service stands in front of a stand-in that costs next to nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import psutil
import uvloop
from bench.rig import MIB, REFINE, TEMPLATE, Program, credentials, request, rig, stub_of

from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio
    from bench.rig import Rig

REVISION = "2026-07-28"
COMMAND = (sys.executable, "-m", "agenta_ai.cli", "mcp")
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ARGUMENTS = {"prompt_template_json": json.dumps(TEMPLATE)}
COLUMNS = ("              ", "start, ms", "idle, MiB", "median, ms", "p99, ms", "calls a second, 32", "CPU ms a call")
WARM_UP = 100
STARTS = 7
LIMIT = 16 * MIB


class Way(Protocol):
    """A way to call the tool."""

    async def call(self) -> None: ...

    def resident(self) -> float: ...

    def cpu_seconds(self) -> float: ...


def message(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": ENVELOPE}}


class Direct:
    """The service itself, by the method that the bridge uses. It has nothing between."""

    def __init__(self, rig: Rig, channel: grpc.aio.Channel) -> None:
        self._stub, self._key = stub_of(channel), rig.keys[0]
        self._request = pb.CallToolStreamRequest.FromString(request().SerializeToString())

    async def call(self) -> None:
        events = self._stub.CallToolStream(self._request, metadata=credentials(self._key), timeout=60)
        last = [event async for event in events][-1]
        assert not last.result.is_error, last

    def resident(self) -> float:
        return 0.0

    def cpu_seconds(self) -> float:
        return 0.0


class OverStdio:
    """The bridge as a child of the client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self.seen = psutil.Process(process.pid)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = len(self._waiting)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._stdin.write(json.dumps(message(number, method, **params)).encode() + b"\n")
        found: dict[str, Any] = await answer
        return found

    async def call(self) -> None:
        answer = await self.ask("tools/call", name=REFINE, arguments=ARGUMENTS)
        assert not answer["result"]["isError"], answer

    def resident(self) -> float:
        return float(self.seen.memory_info().rss) / MIB

    def cpu_seconds(self) -> float:
        used = self.seen.cpu_times()
        return used.user + used.system

    async def stop(self) -> None:
        self._stdin.close()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        async for line in self._stdout:
            answer = json.loads(line)
            self._waiting[answer["id"]].set_result(answer)


class OverHttp:
    """The bridge as a server."""

    def __init__(self, program: Program, address: str, key: str, session: aiohttp.ClientSession) -> None:
        self._program, self._session = program, session
        self._url = f"http://{address}/mcp"
        self._headers = {
            "Accept": "application/json, text/event-stream",
            "Authorization": f"ApiKey {key}",
            "MCP-Protocol-Version": REVISION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": REFINE,
        }

    async def call(self) -> None:
        body = message(1, "tools/call", name=REFINE, arguments=ARGUMENTS)
        async with self._session.post(self._url, json=body, headers=self._headers) as response:
            answer = await response.json()
        assert not answer["result"]["isError"], answer

    def resident(self) -> float:
        return self._program.resident

    def cpu_seconds(self) -> float:
        return self._program.cpu_seconds


async def started(rig: Rig) -> OverStdio:
    """Start the bridge as a child, and wait for its first answer."""
    environment = {**os.environ, "AGENTA_AI_API_KEY": rig.keys[0]}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--target", rig.address, env=environment, limit=LIMIT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    way = OverStdio(process)
    assert "result" in await way.ask("server/discover")
    return way


@asynccontextmanager
async def over_stdio(rig: Rig) -> AsyncIterator[tuple[OverStdio, float]]:
    times = []
    for number in range(STARTS):
        began = time.perf_counter()
        way = await started(rig)
        times.append(time.perf_counter() - began)
        if number < STARTS - 1:
            await way.stop()
    yield way, statistics.median(times)
    await way.stop()


@asynccontextmanager
async def over_http(rig: Rig) -> AsyncIterator[tuple[OverHttp, float]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        command = (*COMMAND, "--target", rig.address, "--listen", "127.0.0.1:0")
        program = Program(command, folder / "log")
        began = time.perf_counter()
        address = await program.start()
        took = time.perf_counter() - began
        stack.push_async_callback(program.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield OverHttp(program, address, rig.keys[0], session), took


async def measure(name: str, way: Way, start: float, calls: int, in_flight: int = 32) -> None:
    idle = way.resident()
    for _ in range(WARM_UP):
        await way.call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await way.call()
        times.append((time.perf_counter() - began) * 1000)
    numbers = iter(range(calls * 4))

    async def work() -> None:
        for _ in numbers:
            await way.call()

    used, began = way.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    took, used = time.perf_counter() - began, way.cpu_seconds() - used
    line(
        name,
        f"{start * 1000:.0f}" if start else "–",
        f"{idle:.0f}" if idle else "–",
        f"{statistics.median(times):.2f}",
        f"{statistics.quantiles(times, n=100)[98]:.2f}",
        f"{calls * 4 / took:.0f}",
        f"{used / calls / 4 * 1000:.2f}" if used else "–",
    )


def line(*cells: str) -> None:
    print(
        *(
            cell.ljust(len(name)) if not index else cell.rjust(len(name))
            for index, (name, cell) in enumerate(zip(COLUMNS, cells, strict=True))
        ),
        sep="  ",
        flush=True,
    )


async def main(calls: int) -> None:
    line(*COLUMNS)
    async with rig(upstream="quick") as running:
        async with running.channel() as channel:
            await measure("the service", Direct(running, channel), 0.0, calls)
        async with over_stdio(running) as (child, start):
            await measure("through stdio", child, start, calls)
        async with over_http(running) as (server, start):
            await measure("through HTTP", server, start, calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls one after the other; four times as many at once")
    uvloop.run(main(parser.parse_args().calls))
