"""Thousands of slow calls at once, in one process of the service: how long they wait, and what they cost it.

They come all at the same moment, or evenly within less than the upstream takes, so that all are in flight at once. Each
line is of a service that has just started and answered a few calls.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

import uvloop
from bench.rig import credentials, outcome, percentile, request, rig, sampled

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

CHANNELS = 16
WARM_UP = 50
TIMEOUT = 60.0
COLUMNS = (
    "calls", "within, s", "at once", "succeeded", "median, s", "99 %, s", "slowest, s",
    "idle, MiB", "peak, MiB", "KiB a call", "CPU ms a call", "its callers",
)  # fmt: skip


async def call(stub: ToolServiceAsyncStub, key: str, after: float) -> tuple[str, float]:
    await asyncio.sleep(after)
    began = time.perf_counter()
    ended = await outcome(stub.CallTool(request(), metadata=credentials(key), timeout=TIMEOUT))
    return ended, time.perf_counter() - began


async def measure(count: int, within: float, delay: float) -> None:
    serving = rig(f"delay={delay}", upstream="quick", max_in_flight=max(count, 4000))
    async with serving as service, service.stubs(CHANNELS) as stubs:
        server, key = service.server, service.keys[0]

        async def calls(count: int) -> list[tuple[str, float]]:
            each = (call(stubs[number % CHANNELS], key, within * number / count) for number in range(count))
            return await asyncio.gather(*each)

        await calls(WARM_UP)
        idle, used, own = server.resident, server.cpu_seconds, time.process_time()
        async with sampled(lambda: server.resident) as samples:
            results = await calls(count)
        used, own = server.cpu_seconds - used, time.process_time() - own
        upstream = await service.standin.census()
    waits = [seconds for _, seconds in results]
    succeeded = sum(ended == "OK" for ended, _ in results)
    failed = Counter(ended for ended, _ in results if ended != "OK")
    peak = max(resident for _, resident in samples)
    line(
        str(count), f"{within:g}", str(upstream["peak"]), str(succeeded),
        f"{statistics.median(waits):.2f}", f"{percentile(waits, 99):.2f}", f"{max(waits):.2f}",
        f"{idle:.0f}", f"{peak:.0f}", f"{(peak - idle) * 1024 / count:.0f}", f"{used / count * 1000:.2f}",
        f"{own / count * 1000:.2f}",
    )  # fmt: skip
    for name, times in failed.items():
        print(f"{times:>6} failed: {name}", flush=True)


def line(*cells: str) -> None:
    print(*(cell.rjust(len(name)) for name, cell in zip(COLUMNS, cells, strict=True)), sep="  ", flush=True)


async def main(counts: list[int], within: list[float], delay: float) -> None:
    line(*COLUMNS)
    for seconds in within:
        for count in counts:
            await measure(count, seconds, delay)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds that the upstream takes")
    parser.add_argument("--within", type=float, action="append", help="seconds in which the calls come; repeatable")
    parser.add_argument("counts", type=int, nargs="*", default=[500, 1000, 2000, 5000], help="calls in flight")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.counts, arguments.within or [0.0, 1.5], arguments.delay))
