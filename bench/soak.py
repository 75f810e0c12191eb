"""A hundred thousand calls with mixed faults: memory, file descriptors and tasks must not grow once all has been seen.

The mix is seeded. The first part of the calls warms up; then the service rests and is counted, and again at the end. It
ends with 1 if something has grown, or if a call has ended as none of its kind may.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import uvloop
from bench.rig import REFINE, credentials, outcome, plot, request, rig, stub_of
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import grpc.aio
    from bench.rig import Rig

METHOD = "/agenta.ai.v1.ToolService/CallTool"
CALLERS = 96
# Each has a connection, and after so many calls a new one.
CALLS_OF_A_CONNECTION = 500
ORGANIZATIONS = 8
WARM_UP = 0.3
SAMPLES = 200
# Seconds in which all that a call has left behind must be gone: runs without callers, results, idle connections.
REPLAY = 5
REST = 20.0
# What may have come to it between the warm-up and the end. Of memory, for 100,000 calls: 100 bytes for each.
MAX_MIB = 10.0
MAX_FILES = 2
MAX_TASKS = 2
MAX_OBJECTS = 2000

TIMEOUT = 30.0
# Just enough for a call to be sent to Agenta, which needs a second.
SHORT = 1.3


class Caller:
    """One of many, with a connection of its own.

    Args:
        channel: The connection.
        dice: Says what it does.
        keys: Credentials of the organizations.
    """

    def __init__(self, channel: grpc.aio.Channel, dice: random.Random, keys: list[str]) -> None:
        self._channel = channel
        self._stub = stub_of(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._raw: Any = channel.unary_unary(METHOD)
        self._dice = dice
        self._key = dice.choice(keys)
        # What it may ask for once more.
        self._asked: deque[tool_service_pb2.CallToolRequest] = deque(maxlen=8)

    def _call(self, asked: tool_service_pb2.CallToolRequest, timeout: float = TIMEOUT) -> Any:
        """Make a call, by either method."""
        if self._dice.random() < 0.5:
            return self._stub.CallTool(asked, metadata=credentials(self._key), timeout=timeout)
        return asyncio.ensure_future(self._streamed(asked, timeout))

    async def _streamed(self, asked: tool_service_pb2.CallToolRequest, timeout: float) -> Any:
        same = tool_service_pb2.CallToolStreamRequest.FromString(asked.SerializeToString())
        *_, last = [
            event async for event in self._stub.CallToolStream(same, metadata=credentials(self._key), timeout=timeout)
        ]
        return last.result

    def _uuid(self) -> str:
        return str(UUID(int=self._dice.getrandbits(128), version=4))

    async def once(self) -> str:
        return await outcome(self._call(request()))

    async def once_with_id(self) -> str:
        self._asked.append(asked := request(request_id=self._uuid()))
        return await outcome(self._call(asked))

    async def repeat(self) -> str:
        return await outcome(self._call(self._dice.choice(self._asked) if self._asked else request()))

    async def join(self) -> str:
        asked = request(request_id=self._uuid(), guidelines="standin: delay=0.05")
        first, second = await asyncio.gather(outcome(self._call(asked)), outcome(self._call(asked)))
        return first if first == second else f"{first} and {second}"

    async def reuse(self) -> str:
        request_id = self._uuid()
        await outcome(self._call(request(request_id=request_id)))
        return await outcome(self._call(request(request_id=request_id, guidelines="Be brief.")))

    async def cancel(self, request_id: str = "") -> str:
        call = self._call(request(request_id=request_id, guidelines="standin: delay=5"))
        asyncio.get_running_loop().call_later(self._dice.uniform(0, 0.1), call.cancel)
        return await outcome(call)

    async def cancel_with_id(self) -> str:
        return await self.cancel(self._uuid())

    async def late(self) -> str:
        return await outcome(self._call(request(guidelines="standin: delay=5"), SHORT))

    async def hurried(self) -> str:
        return await outcome(self._call(request(), 0.5))

    async def unreadable(self) -> str:
        return await outcome(self._raw(b"\xff" * 100, metadata=credentials(self._key), timeout=TIMEOUT))

    async def too_large(self) -> str:
        return await outcome(self._call(request(guidelines="x" * (1 << 20))))

    async def wrong(self) -> str:
        asked = request()
        asked.arguments.Clear()
        return await outcome(self._call(asked))

    async def wrong_id(self) -> str:
        return await outcome(self._call(request(request_id="1")))

    async def unknown(self) -> str:
        return await outcome(self._call(tool_service_pb2.CallToolRequest(name=f"{REFINE}s")))

    async def stranger(self) -> str:
        metadata = self._dice.choice(((), credentials("wrong"), credentials(self._key[:-1] + "!")))
        return await outcome(self._stub.CallTool(request(), metadata=metadata, timeout=TIMEOUT))

    async def status(self) -> str:
        asked = tool_service_pb2.StatusRequest()
        return await outcome(self._stub.Status(asked, metadata=credentials(self._key), timeout=TIMEOUT))

    async def tools(self) -> str:
        asked = tool_service_pb2.ListToolsRequest()
        return await outcome(self._stub.ListTools(asked, metadata=credentials(self._key), timeout=TIMEOUT))

    async def health(self) -> str:
        return await outcome(self._health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT))

    async def no_method(self) -> str:
        method: Any = self._channel.unary_unary("/agenta.ai.v1.ToolService/None", Empty.SerializeToString)
        return await outcome(method(Empty(), timeout=TIMEOUT))


@dataclass(frozen=True)
class Kind:
    """Something that callers do.

    Attributes:
        weight: How often, of all weights.
        ends: How it may end.
        act: What it is.
    """

    weight: float
    ends: tuple[str, ...]
    act: Callable[[Caller], Coroutine[Any, Any, str]]


def fault(weight: float, words: str, *ends: str, timeout: float = TIMEOUT) -> Kind:
    """A call in which the upstream does this."""
    asked = request(guidelines=f"standin: {words}")

    async def act(caller: Caller) -> str:
        return await outcome(caller._call(asked, timeout))

    return Kind(weight, ends, act)


KINDS = (
    Kind(30, ("OK",), Caller.once),
    Kind(12, ("OK",), Caller.once_with_id),
    Kind(8, ("OK",), Caller.repeat),
    Kind(4, ("OK",), Caller.join),
    Kind(1, ("REQUEST_ID_REUSED",), Caller.reuse),
    Kind(5, ("CANCELLED",), Caller.cancel),
    Kind(4, ("CANCELLED",), Caller.cancel_with_id),
    Kind(2, ("UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT"), Caller.late),
    Kind(2, ("DEADLINE_TOO_SHORT", "DEADLINE_EXCEEDED"), Caller.hurried),
    Kind(2, ("REQUEST_MALFORMED",), Caller.unreadable),
    Kind(0.5, ("REQUEST_TOO_LARGE",), Caller.too_large),
    Kind(2, ("ARGUMENTS_INVALID",), Caller.wrong),
    Kind(2, ("REQUEST_INVALID",), Caller.wrong_id),
    Kind(2, ("TOOL_NOT_FOUND",), Caller.unknown),
    Kind(4, ("CREDENTIALS_INVALID",), Caller.stranger),
    Kind(2, ("OK",), Caller.status),
    Kind(2, ("OK",), Caller.tools),
    Kind(1, ("OK",), Caller.health),
    Kind(1, ("UNIMPLEMENTED",), Caller.no_method),
    fault(1, "status=401", "UPSTREAM_CREDENTIALS_REJECTED"),
    fault(1, "status=424", "UPSTREAM_PROVIDER_FAILED"),
    fault(0.5, "status=429", "UPSTREAM_RATE_LIMITED"),
    fault(0.5, "status=503", "UPSTREAM_UNAVAILABLE"),
    fault(1, "status=500", "UPSTREAM_FAILED"),
    fault(0.5, "status=504", "UPSTREAM_TIMEOUT"),
    fault(0.5, "status=302", "UPSTREAM_REJECTED"),
    fault(1, "reset=headers", "UPSTREAM_BROKEN"),
    fault(1, "close=body", "UPSTREAM_BROKEN"),
    fault(0.5, "garbage", "UPSTREAM_BROKEN"),
    fault(0.5, "length=99999", "UPSTREAM_BROKEN"),
    fault(0.5, "stall=body", "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", timeout=SHORT),
    fault(0.2, "huge=3", "UPSTREAM_OUTPUT_INVALID"),
    fault(0.5, "drip=0.0001", "OK"),
    fault(0.5, "body=html", "UPSTREAM_OUTPUT_INVALID"),
    fault(1, "answer=lossy", "UPSTREAM_OUTPUT_INVALID"),
    fault(1, "answer=prose", "UPSTREAM_OUTPUT_INVALID"),
    fault(1, "answer=fenced", "OK"),
)


class Soak:
    """All callers, and what is seen meanwhile.

    Args:
        service: What they call.
        seed: Of the mix.
    """

    def __init__(self, service: Rig, seed: int) -> None:
        self._service = service
        self._dice = random.Random(seed)
        self.made = 0
        self.ended: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        # After how many calls, which memory.
        self.memory: list[tuple[float, float]] = []

    async def calls(self, until: int, every: int) -> None:
        """Make calls until there have been so many, look at the memory now and then."""

        async def caller() -> None:
            while self.made < until:
                async with self._caller() as one:
                    for _ in range(CALLS_OF_A_CONNECTION):
                        if self.made >= until:
                            break
                        self.made += 1
                        if self.made % every == 0:
                            self.memory.append((self.made, self._service.server.resident))
                        await self._one_call(one)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def _one_call(self, caller: Caller) -> None:
        [kind] = self._dice.choices(KINDS, [kind.weight for kind in KINDS])
        ended = await kind.act(caller)
        self.ended[ended] += 1
        if ended not in kind.ends:
            self.wrong[f"{ended}, not {' or '.join(kind.ends)}"] += 1

    @asynccontextmanager
    async def _caller(self) -> AsyncIterator[Caller]:
        async with self._service.channel() as channel:
            yield Caller(channel, self._dice, list(self._service.keys))

    async def rested(self) -> dict[str, float]:
        """What the service holds when nobody has called for a while."""
        # The error of a stream leads to its channel, whose connection would stay for as long as there is one.
        gc.collect()
        await asyncio.sleep(REST)
        server = self._service.server
        # Results expire when there are calls.
        async with self._caller() as caller:
            for _ in range(10):
                await caller.once_with_id()
        await asyncio.sleep(1)
        return {**await server.census(), "files": server.files, "MiB": server.resident}


async def soak(count: int, seed: int, picture: Path | None) -> list[str]:
    """Return what is wrong."""
    async with rig("delay=0.02", ORGANIZATIONS, result_ttl_seconds=REPLAY) as service:
        run = Soak(service, seed)
        warm_up = int(count * WARM_UP)
        began = time.perf_counter()
        await run.calls(warm_up, max(count // SAMPLES, 1))
        before = await run.rested()
        await run.calls(count, max(count // SAMPLES, 1))
        seconds = time.perf_counter() - began - REST
        after = await run.rested()
        upstream = await service.standin.census()
        code, stopping = await service.server.stop()
    # At rest, for under load it goes up and down with what is in flight.
    growth = (after["MiB"] - before["MiB"]) / (count - warm_up) * 100_000
    print(f"{run.made:,} calls in {seconds:.0f} s, {upstream['started']:,} of them sent on")
    print("ended:", ", ".join(f"{name} {times:,}" for name, times in run.ended.most_common()))
    for name in before:
        print(f"{name:<8} {before[name]:>10,.1f} after the warm-up {after[name]:>10,.1f} at the end")
    print(f"memory grew by {growth:.2f} MiB per 100,000 calls")
    print(f"the service exited with code {code} after {stopping:.1f} s")
    if picture:
        draw(picture, run, warm_up)
    faults = [f"{times} ended {what}" for what, times in run.wrong.items()]
    for name, most in {"files": MAX_FILES, "tasks": MAX_TASKS, "objects": MAX_OBJECTS}.items():
        if after[name] - before[name] > most:
            faults.append(f"{after[name] - before[name]:,.0f} more {name} than after the warm-up")
    if growth > MAX_MIB:
        faults.append(f"memory grew by {growth:.1f} MiB per 100,000 calls")
    if upstream["in_flight"]:
        faults.append(f"{upstream['in_flight']} requests still run upstream")
    if code:
        faults.append(f"the service exited with code {code}")
    return faults


def draw(path: Path, run: Soak, warm_up: int) -> None:
    with plot(path, "Soak: mixed calls and faults", "calls", "resident memory of the service, MiB") as axes:
        axes.plot(*zip(*run.memory, strict=True), label="memory")
        axes.axvline(warm_up, linestyle=":", color="gray", label="end of the warm-up")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw it into this file; needs matplotlib")
    arguments = parser.parse_args()
    faults = uvloop.run(soak(arguments.calls, arguments.seed, arguments.plot))
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
