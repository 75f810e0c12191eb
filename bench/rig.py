"""The service as it is deployed, with a stand-in for Agenta: each in a process of its own, and the callers in this one.

``python -m bench.rig serve`` and ``standin``, or ``quick``, are the other two processes.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import re
import resource
import signal
import statistics
import sys
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import psutil
import uvloop
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from agenta_ai.v1 import error_pb2, tool_service_pb2, tool_service_pb2_grpc
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.cli import main as agenta_ai_server
from agenta_ai_server.settings.schema import names
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.refine import refine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.received import Received

ROOT = Path(__file__).parent.parent
REFINE = "tools.agenta.api.refine_prompt"
# Two kilobytes, as prompts of such agents are.
TEMPLATE = json.loads((Path(__file__).parent / "prompt.json").read_text())
LISTENING = re.compile(r"(?:listening|running) on (?:http://)?([0-9.]+:[0-9]+)")
LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
# The limiter does its work, and refuses nobody.
LIMITS = "burst = 100000\nper_minute = 60000\n"
PREFIX = "ERROR_REASON_"
MIB = 1 << 20
# grpc lets the channels of a process share their connections, and callers elsewhere have their own.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 * MIB))


class Program:
    """One of the other processes.

    Args:
        command: What it runs; a word alone is a role of this module.
        log: Where its log goes.
        environment: What it has besides this process's own.
    """

    def __init__(self, command: str | Sequence[str], log: Path, **environment: str) -> None:
        self._is_role = isinstance(command, str)
        self._command = (sys.executable, "-m", "bench.rig", command) if isinstance(command, str) else command
        self._log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTA_AI_", "OTEL_"))}
        own = {
            "PYTHONPATH": os.pathsep.join(sys.path),
            # As deployed: compiled once, and not at each start, whatever the shell says.
            "PYTHONDONTWRITEBYTECODE": "",
            # As the command sets it: otherwise, workers may die in grpc's fork handlers.
            "GRPC_ENABLE_FORK_SUPPORT": "false",
        }
        self._environment = kept | own | environment

    async def start(self) -> str:
        """Return the address at which it listens."""
        with self._log.open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, env=self._environment, stderr=log,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE if self._is_role else log,
            )  # fmt: skip
        self.seen = psutil.Process(self._process.pid)
        while not (found := LISTENING.search(self._log.read_text())):
            if self._process.returncode is not None:
                raise SystemExit(f"{self._command} has not started:\n{self._log.read_text()}")
            await asyncio.sleep(0.05)
        return found[1]

    @property
    def resident(self) -> float:
        """Its resident memory, in MiB."""
        return float(self.seen.memory_info().rss) / MIB

    @property
    def cpu_seconds(self) -> float:
        """What it has used of all processors."""
        # The clock that clock_getcpuclockid(3) names: /proc counts in hundredths of a second.
        return time.clock_gettime(~self._process.pid << 3 | 2)

    @property
    def files(self) -> int:
        """How many it has open, sockets included."""
        return int(self.seen.num_fds())

    async def census(self, delay: float | None = None) -> dict[str, int]:
        """What it has inside: ``objects``, and ``tasks`` that run; the stand-in also its runs: ``started``, ``peak``
        (most at once), ``in_flight``.

        Args:
            delay: Seconds that the quick stand-in takes from now on.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{'' if delay is None else delay}\n".encode())
        counts: dict[str, int] = json.loads(await self._process.stdout.readline())
        return counts

    async def stop(self) -> tuple[int, float]:
        """Ask it to end; return how it did, and after how many seconds."""
        began = time.perf_counter()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        return code, time.perf_counter() - began


class Rig:
    """What a measurement works with.

    Attributes:
        server: The service.
        standin: Agenta.
        address: Where the service listens.
        keys: The callers' API keys, one for each organization.
    """

    def __init__(self, server: Program, standin: Program, address: str, keys: Sequence[str]) -> None:
        self.server = server
        self.standin = standin
        self.address = address
        self.keys = keys

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    @asynccontextmanager
    async def stubs(self, count: int) -> AsyncIterator[list[ToolServiceAsyncStub]]:
        """So many, each over a connection of its own."""
        async with AsyncExitStack() as stack:
            channels = [self.channel() for _ in range(count)]
            for channel in channels:
                await stack.enter_async_context(channel)
                await channel.channel_ready()
            yield [stub_of(channel) for channel in channels]


@asynccontextmanager
async def rig(
    fault: str = "", organizations: int = 1, upstream: str = "standin", **settings: object
) -> AsyncIterator[Rig]:
    """Start both processes, and stop them.

    Args:
        fault: What the stand-in does wrong if a call doesn't say: ``delay=2``.
        organizations: How many have a key.
        upstream: ``standin``, or ``quick``: one that costs next to nothing, where the machine must not be the bound.
        settings: The server's, by their names without the prefix and in lower case.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        standin = Program(upstream, folder / "standin.log", STANDIN_FAULT=fault)
        url = f"http://{await standin.start()}"
        keys = keys_in(folder, organizations)
        server = Program("serve", folder / "server.log", **deployed(folder, url, **settings))
        try:
            yield Rig(server, standin, await server.start(), keys)
        finally:
            await server.stop()
            await standin.stop()


def keys_in(folder: Path, organizations: int = 1) -> list[str]:
    """Make so many organizations' API keys, which a service in this folder accepts."""
    return [
        create_key(
            folder / "keys.json", user="user", organization=f"organization {number}", project="project",
            permissions=["edit_workflows"], expires=None,
        )
        for number in range(organizations)
    ]  # fmt: skip


def deployed(folder: Path, upstream: str, **settings: object) -> dict[str, str]:
    """The environment of a service whose files are in this folder, with all that is on by default.

    Args:
        folder: Holds the keys.
        upstream: URL of Agenta.
        settings: Others, by their names without the prefix and in lower case.

    Raises:
        ValueError: There is no such setting.
    """
    others = {f"AGENTA_AI_GRPC_{name.upper()}": str(value) for name, value in settings.items()}
    if unknown := others.keys() - set(names()):
        # The service would only warn, and something else would be measured.
        raise ValueError(f"there is no setting {', '.join(sorted(unknown))}")
    (folder / "limits.toml").write_text(LIMITS)
    return {
        "AGENTA_AI_SERVICES_API_URL": upstream,
        # The route that the peers use, too; the quick upstream answers in its form.
        "AGENTA_AI_GRPC_UPSTREAM_ROUTE": "run",
        "AGENTA_AI_SERVICES_API_KEY": "standin-key",
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
        "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
        "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0",
        "AGENTA_AI_GRPC_AUTH": "api_keys",
        "AGENTA_AI_GRPC_API_KEYS_FILE": str(folder / "keys.json"),
        "AGENTA_AI_GRPC_LIMITS_FILE": str(folder / "limits.toml"),
        **others,
    }


def stub_of(channel: grpc.aio.Channel) -> ToolServiceAsyncStub:
    """The contract's methods on a channel."""
    return tool_service_pb2_grpc.ToolServiceStub(channel)


def request(template: object = TEMPLATE, *, request_id: str = "", **arguments: str) -> tool_service_pb2.CallToolRequest:
    """A call of the tool that refines prompts."""
    struct = Struct()
    struct.update({"prompt_template_json": json.dumps(template), **arguments})
    return tool_service_pb2.CallToolRequest(name=REFINE, arguments=struct, request_id=request_id)


def credentials(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a key."""
    return (("authorization", f"ApiKey {key}"),)


async def outcome(call: Awaitable[Any]) -> str:
    """``OK``, or the name of the reason, or else of the status, by which the call has failed."""
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        return reason(error) or error.code().name
    except asyncio.CancelledError:
        return "CANCELLED"
    if isinstance(response, tool_service_pb2.CallToolResponse) and response.is_error:
        return error_pb2.ErrorReason.Name(response.error.reason).removeprefix(PREFIX)
    return "OK"


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refusal; empty if it is none."""
    info = ErrorInfo()
    try:
        status = rpc_status.from_call(cast("Any", error))
    except ValueError:
        # grpc's client replaces the details of a status that arrives after the call's deadline.
        status = None
    details = status.details if status else ()
    return next((info.reason.removeprefix(PREFIX) for detail in details if detail.Unpack(info)), "")


@asynccontextmanager
async def sampled(value: Callable[[], float], every: float = 0.05) -> AsyncIterator[list[tuple[float, float]]]:
    """Seconds since the beginning and the value then, for as long as the context lasts."""
    samples: list[tuple[float, float]] = []
    began = time.perf_counter()

    async def sample() -> None:
        while True:
            samples.append((time.perf_counter() - began, value()))
            await asyncio.sleep(every)

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent don't exceed; nan if there are none."""
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)] if values else float("nan")


@contextmanager
def plot(path: Path, title: str, across: str, up: str) -> Iterator[Any]:
    """A picture to draw into, which is then written to the file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    yield axes
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _answer_census(more: Callable[[], dict[str, int]]) -> None:
    """Answer each line that comes in."""

    def answer() -> None:
        # Not by sys.stdin, whose lock the end of the process would wait for.
        while told := os.read(0, 64):
            if told.strip():
                _Quick.delay = float(told)
            print(json.dumps(_counted() | more()), flush=True)

    threading.Thread(target=answer, daemon=True).start()


def _counted() -> dict[str, int]:
    # On its own, for as long as there is a list of them all objects live.
    gc.collect()
    # What is free between allocations is no leak, and would go up and down by ten megabytes.
    ctypes.CDLL(None).malloc_trim(0)
    objects = gc.get_objects()
    tasks = sum(isinstance(each, asyncio.Task) and not each.done() for each in objects)
    return {"objects": len(objects), "tasks": tasks}


async def _stand_in() -> None:
    async with StandIn(fault=Fault.parse(os.environ["STANDIN_FAULT"]), keep=0) as standin:
        peak = 0

        async def respond(_: Received) -> None:
            nonlocal peak
            peak = max(peak, standin.in_flight)

        standin.respond = respond
        _answer_census(lambda: {"started": standin.started, "in_flight": standin.in_flight, "peak": peak})
        logging.warning("listening on %s", standin.url.removeprefix("http://"))
        await _until_told()


class _Quick(asyncio.Protocol):
    """Gives every request the stand-in's answer to the usual one, after a while; looks at its length alone."""

    in_flight = peak = started = 0
    delay = 0.0

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and (length := LENGTH.search(head)) and len(body) >= int(length[1]):
            self._received = b""
            _Quick.started += 1
            _Quick.in_flight += 1
            _Quick.peak = max(_Quick.peak, _Quick.in_flight)
            asyncio.get_running_loop().call_later(self.delay, self._reply)

    def _reply(self) -> None:
        _Quick.in_flight -= 1
        self._transport.write(self._answer)


async def _quick() -> None:
    answer = answers.success(refine(json.dumps(TEMPLATE), ""))
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer.body)}\r\n\r\n"
    data, _Quick.delay = head.encode() + answer.body, Fault.parse(os.environ["STANDIN_FAULT"]).delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Quick(data), "127.0.0.1", 0, backlog=4096)
    _answer_census(lambda: {"started": _Quick.started, "in_flight": _Quick.in_flight, "peak": _Quick.peak})
    host, port = server.sockets[0].getsockname()
    logging.warning("listening on %s:%d", host, port)
    await _until_told()


async def _until_told() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _answer_census(dict)
        sys.exit(agenta_ai_server(["serve"]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_stand_in() if sys.argv[1] == "standin" else _quick())
