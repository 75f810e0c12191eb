"""The servers that are measured: how each is started and called, what a call costs it, and what it is compared with.

A server under test has one core for itself. The generators, the upstream and whoever measures share the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import statistics
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
from bench.generators import TOOLS, Answers, Ghz, Load, Vegeta
from bench.rig import (
    CHANNEL_OPTIONS,
    REFINE,
    ROOT,
    TEMPLATE,
    Program,
    credentials,
    deployed,
    keys_in,
    percentile,
    request,
    sampled,
    stub_of,
)
from google.protobuf import json_format
from grpc.aio import insecure_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai.v1.tool_service_pb2 import CallToolResponse
from agenta_ai_server.standin.refine import refine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

RESULTS = Path(__file__).parent / "results"
BEFORE = ROOT / ".tools" / "before" / "bin" / "agenta-ai-server"
COMMAND = str(ROOT / ".tools" / "served" / "bin" / "agenta-ai-server")
ARGUMENTS = {"prompt_template_json": json.dumps(TEMPLATE)}
# The stateless revision, in which a request says all that a session used to.
MCP_VERSION = "2026-07-28"
MCP_META = {
    f"io.modelcontextprotocol/{name}": value
    for name, value in (
        ("protocolVersion", MCP_VERSION), ("clientCapabilities", {}), ("clientInfo", {"name": "bench", "version": "0"}),
    )
}  # fmt: skip
MCP_PARAMS = {"name": REFINE, "arguments": ARGUMENTS, "_meta": MCP_META}
MCP_CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": MCP_PARAMS}
MCP_HEADERS = {
    "accept": "application/json, text/event-stream", "mcp-protocol-version": MCP_VERSION,
    "mcp-method": "tools/call", "mcp-name": REFINE,
}  # fmt: skip
# What the servers are made of.
MEASURED = (
    "grpcio", "httpx", "uvloop", "pydantic", "fastapi", "uvicorn", "granian", "mcp", "fastmcp", "connectrpc",
)  # fmt: skip
# Nobody balances over it, who would have to notice.
QUICK_STOP = {"drain_seconds": 0}
# Before anything counts: connections open, and whatever is made at the first call is made.
WARM_UP = Load(0.5, in_flight=16)


@dataclass
class Server:
    """One that runs.

    Attributes:
        name: What it is called in the results.
        programs: Its processes.
        generator: Calls it.
        failures: How calls have failed.
    """

    name: str
    programs: Sequence[Program]
    generator: Ghz | Vegeta
    failures: list[str] = field(default_factory=list)

    @property
    def cpu_seconds(self) -> float:
        return sum(program.cpu_seconds for program in self.programs)

    @property
    def resident(self) -> float:
        return sum(program.resident for program in self.programs)

    async def measure(self, load: Load, delay: float = 0.0) -> dict[str, float]:
        """What a call costs: ``cpu_ms``, and beyond the upstream's delay ``p50_ms``, ``p99_ms`` and ``p999_ms``.

        Besides, how many ``calls`` that is from, and how many came ``per_second``.
        """
        used = self.cpu_seconds
        answers = await self.send(load)
        used = self.cpu_seconds - used
        if not (calls := len(answers.latencies)):
            raise SystemExit(f"{self.name}: no call has succeeded; {self.failures[:3]}")
        # By Little's law: what starts and ends the generator is no part of it.
        rate = load.rate or load.in_flight / statistics.mean(answers.latencies)
        beyond = [(seconds - delay) * 1000 for seconds in answers.latencies]
        return {
            "calls": calls, "per_second": rate, "cpu_ms": used / (calls + len(answers.failures)) * 1000,
            "p50_ms": percentile(beyond, 50), "p99_ms": percentile(beyond, 99), "p999_ms": percentile(beyond, 99.9),
        }  # fmt: skip

    async def send(self, load: Load) -> Answers:
        answers = await self.generator.send(load)
        self.failures += answers.failures
        return answers

    async def memory(self, load: Load) -> dict[str, float]:
        """What it holds, ``idle_mib``, and with so many calls in flight, ``in_flight_kib`` for each; and ``cpu_ms``."""
        idle = self.resident
        async with sampled(lambda: self.resident) as samples:
            measured = await self.measure(load)
        peak = max(resident for _, resident in samples)
        return {
            "idle_mib": idle,
            "in_flight_kib": (peak - idle) * 1024 / load.in_flight,
            "cpu_ms": measured["cpu_ms"],
            "calls": measured["calls"],
        }


class Bench:
    """Starts servers in front of one upstream, and stops them with itself.

    Args:
        stack: Stops them.
        folder: For all files.
        upstream: The quick stand-in.
        url: Of that.
        cores: Which a server under test gets; all, if it is ``None``.
    """

    def __init__(self, stack: AsyncExitStack, folder: Path, upstream: Program, url: str, cores: str | None) -> None:
        self._stack = stack
        self._folder = folder
        self._upstream = upstream
        self._url = url
        self._cores = cores
        [self._key] = keys_in(folder)

    async def delay(self, seconds: float) -> None:
        """Have the upstream take so long from now on."""
        await self._upstream.census(seconds)

    async def service(self, name: str = "service", *, with_ids: bool = False, **settings: object) -> Server:
        """The service as it is deployed.

        Args:
            name: What it is called.
            with_ids: Each call has a ``request_id`` of its own.
            settings: As :func:`bench.rig.deployed`; those in upper case are variables as they stand.
        """
        variables = {name: str(value) for name, value in settings.items() if name.isupper()}
        settings = {name: value for name, value in settings.items() if not name.isupper()}
        environment = deployed(self._folder, self._url, **{"metrics_listen": "127.0.0.1:0", **QUICK_STOP, **settings})
        program, address = await self.started([COMMAND, "serve"], **environment, **variables)
        return await self._called(Server(name, [program], self._ghz(address, name, with_ids=with_ids)), address)

    async def before(self) -> Server | None:
        """The service before its refactoring; ``None`` where it isn't installed, for lack of the history."""
        if not BEFORE.exists():
            return None
        environment = deployed(self._folder, self._url, metrics_listen="127.0.0.1:0", **QUICK_STOP)
        # Its own packages, and not those of this environment.
        program, address = await self.started([str(BEFORE), "serve"], **environment, PYTHONPATH="")
        return await self._called(Server("before", [program], self._ghz(address, "before")), address)

    async def replicas(self, count: int) -> Server:
        """So many processes of the service on one port."""
        programs: list[Program] = []
        address = "127.0.0.1:0"
        for _ in range(count):
            environment = deployed(self._folder, self._url, reuse_port="true", listen=address, **QUICK_STOP)
            program, address = await self.started([COMMAND, "serve"], **environment)
            programs.append(program)
        name = "1 process" if count == 1 else f"{count} processes"
        return await self._called(Server(name, programs, self._ghz(address, name)), address)

    async def rest(self, host: str) -> Server:
        """The REST endpoint, on ``uvicorn`` or ``granian``."""
        program, address = await self.started(_module("rest", host), **self._environment)
        headers = {"content-type": "application/json", "authorization": f"ApiKey {self._key}"}
        body = json.dumps({"name": REFINE, "arguments": ARGUMENTS}).encode()
        return await self._posted(
            f"REST on {host}", program, f"http://{address}/tools/call", headers, body, _structured_of_json
        )

    async def mcp(self, library: str, name: str) -> Server:
        """The MCP server of the ``sdk`` or of ``fastmcp``."""
        program, address = await self.started(_module("mcp", library), **self._environment)
        headers = {"content-type": "application/json", **MCP_HEADERS}
        body = json.dumps(MCP_CALL).encode()
        return await self._posted(name, program, f"http://{address}/mcp", headers, body, _structured_of_json)

    async def connect(self) -> Server:
        """The method of the contract, by Connect."""
        program, address = await self.started(_module("connect"), **self._environment)
        headers = {"content-type": "application/proto", "connect-protocol-version": "1"}
        url = f"http://{address}/agenta.ai.v1.ToolService/CallTool"
        body = request().SerializeToString()
        return await self._posted("connectrpc", program, url, headers, body, _structured_of_message)

    async def floor(self) -> Server:
        """The method that does nothing."""
        program, address = await self.started(_module("floor"))
        return await self._called(Server("floor", [program], self._ghz(address, "floor")), address)

    async def ceiling(self) -> Server:
        """The server in Go."""
        program, address = await self.started([str(TOOLS / "ceiling")], **self._environment)
        return await self._called(Server("ceiling", [program], self._ghz(address, "ceiling")), address)

    async def started(self, command: Sequence[str], **environment: str) -> tuple[Program, str]:
        """Start a program on the cores of servers; return it and its address."""
        return await self._started(self._pinned(command), **environment)

    async def beside(self, role: str) -> tuple[Program, str]:
        """Start one of the rig's on the other cores."""
        return await self._started(role, STANDIN_FAULT="delay=0")

    async def _started(self, command: str | Sequence[str], **environment: str) -> tuple[Program, str]:
        program = Program(command, self._folder / f"{len(list(self._folder.iterdir()))}.log", **environment)
        address = await program.start()
        self._stack.push_async_callback(program.stop)
        return program, address

    async def seconds_to_serving(self, **settings: object) -> float:
        """From the start of a process of the service to its first answer about its health, which must be SERVING."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{found.getsockname()[1]}"
        environment = deployed(self._folder, self._url, listen=address, **QUICK_STOP, **settings)
        began = time.perf_counter()
        starting = asyncio.create_task(self.started([COMMAND, "serve"], **environment))
        while not await _serving(address):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - began
        program, _ = await starting
        await program.stop()
        return seconds

    async def seconds_of(self, *command: str) -> float:
        """Until a command has ended, on the core of servers."""
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*self._pinned(command), stdout=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise SystemExit(f"{command} ended with {process.returncode}")
        return time.perf_counter() - began

    def _pinned(self, command: Sequence[str]) -> Sequence[str]:
        return ["taskset", "-c", self._cores, *command] if self._cores else command

    @property
    def _environment(self) -> dict[str, str]:
        return {"UPSTREAM": self._url, "API_KEY": self._key}

    def _ghz(self, address: str, name: str, *, with_ids: bool = False) -> Ghz:
        return Ghz(address, self._key, self._own_folder(name), with_ids=with_ids)

    def _own_folder(self, name: str) -> Path:
        folder = self._folder / name.replace(" ", "_")
        folder.mkdir()
        return folder

    async def _called(self, server: Server, address: str) -> Server:
        async with insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            answer = await stub_of(channel).CallTool(request(), metadata=credentials(self._key), timeout=60)
        return await _checked(server, json_format.MessageToDict(answer.structured_content))

    async def _posted(
        self, name: str, program: Program, url: str, headers: dict[str, str], body: bytes,
        structured: Callable[[bytes], Any],
    ) -> Server:  # fmt: skip
        # One that logs its address before it listens refuses the first.
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=5)) as client:
            answer = (await client.post(url, headers=headers, content=body, timeout=60)).raise_for_status().content
        server = Server(name, [program], Vegeta(url, headers, body, self._own_folder(name)))
        return await _checked(server, structured(answer))


@asynccontextmanager
async def bench(*, pinned: bool = True) -> AsyncIterator[Bench]:
    """What starts servers, with an upstream of its own."""
    every = os.sched_getaffinity(0)
    own, *others = sorted(every, reverse=True)
    apart = pinned and bool(others)
    if apart:
        os.sched_setaffinity(0, others)
    try:
        with TemporaryDirectory() as name:
            async with AsyncExitStack() as stack:
                upstream = Program("quick", Path(name) / "quick.log", STANDIN_FAULT="delay=0")
                address = await upstream.start()
                stack.push_async_callback(upstream.stop)
                yield Bench(stack, Path(name), upstream, f"http://{address}", str(own) if apart else None)
    finally:
        os.sched_setaffinity(0, every)


def save(name: str, results: dict[str, Any], servers: Sequence[Server]) -> int:
    """Write what was measured and on what; return 1 if a call has failed."""
    failures = {server.name: server.failures for server in servers if server.failures}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=1, default=lambda number: round(number, 4))
    (RESULTS / f"{name}.json").write_text(f"{text}\n")
    for server, failed in failures.items():
        print(f"{server}: {len(failed)} calls have failed: {failed[:3]}", file=sys.stderr)
    return 1 if failures else 0


def machine() -> dict[str, object]:
    """What all of it ran on."""
    cpus = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processor": cpus[0] if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in MEASURED},
    }


async def _serving(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        # A channel of grpc would wait for a second after the first refusal.
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    async with insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        check: Any = health_pb2_grpc.HealthStub(channel)
        answer = await check.Check(health_pb2.HealthCheckRequest(), timeout=60)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _structured_of_json(body: bytes) -> Any:
    answer = json.loads(body)
    return answer.get("result", answer)["structuredContent"]


def _structured_of_message(body: bytes) -> Any:
    return json_format.MessageToDict(CallToolResponse.FromString(body).structured_content)


async def _checked(server: Server, structured: Any) -> Server:
    """Warm the server up, if what it has answered is the refinement, which all must give."""
    if structured["messages"] != json.loads(refine(ARGUMENTS["prompt_template_json"], ""))["messages"]:
        raise SystemExit(f"{server.name} has answered {structured}")
    await server.send(WARM_UP)
    return server


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bench.peers.{name}", *arguments]
