"""Ten times more calls than there is room for: what is still achieved, and how soon the others are refused.

First as many callers as keep every place taken, each with its next call as soon as it has its answer: that is the
goodput at capacity. Then calls that come at this rate, so that places are taken and freed one after another, and then
at ten times this rate, whether or not the ones before are answered. A few of these come from other organizations, each
far below its share, and all others from one that floods the service.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from bench.rig import credentials, outcome, percentile, plot, request, rig, sampled, slope

if TYPE_CHECKING:
    from bench.rig import Rig

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

CHANNELS = 8
OTHERS = 4
# Of the capacity, each of the other organizations.
MODEST = 0.1
TIMES = 10
TIMEOUT = 5.0
# At the beginning, which don't count: places are taken.
SETTLING = 5.0


@dataclass
class Callers:
    """Those of one organization, and what became of their calls: when each began and ended, in seconds."""

    key: str
    began: float
    calls: list[tuple[str, float, float]] = field(default_factory=list)

    async def call(self, stub: ToolServiceAsyncStub) -> None:
        began = time.perf_counter() - self.began
        ended = await outcome(stub.CallTool(request(), metadata=credentials(self.key), timeout=TIMEOUT))
        self.calls.append((ended, began, time.perf_counter() - self.began))

    def seconds(self, *outcomes: str) -> list[float]:
        """How long the calls took that ended so."""
        return [end - begin for ended, begin, end in self.calls if ended in outcomes and begin > SETTLING]

    def rate(self, ended: str, seconds: float) -> float:
        """How many ended so in a second, of those that ended after the beginning."""
        return sum(what == ended and SETTLING < end <= seconds for what, _, end in self.calls) / (seconds - SETTLING)

    async def at_once(self, stubs: list[ToolServiceAsyncStub], count: int, seconds: float) -> None:
        async def caller(stub: ToolServiceAsyncStub) -> None:
            while time.perf_counter() - self.began < seconds:
                await self.call(stub)

        await asyncio.gather(*(caller(stubs[number % CHANNELS]) for number in range(count)))

    async def at_rate(self, stubs: list[ToolServiceAsyncStub], rate: float, begin: float, end: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = begin + number / rate
                if due > end:
                    return
                # Late ones are sent at once, so that the rate holds.
                if (early := due - (time.perf_counter() - self.began)) > 0:
                    await asyncio.sleep(early)
                group.create_task(self.call(stubs[number % CHANNELS]))


async def at_capacity(service: Rig, stubs: list[ToolServiceAsyncStub], places: int, seconds: float) -> float:
    """Goodput when all places are taken all the time."""
    callers = Callers(service.keys[0], time.perf_counter())
    await callers.at_once(stubs, 2 * places, seconds)
    return callers.rate("OK", seconds)


async def overload(
    service: Rig, stubs: list[ToolServiceAsyncStub], capacity: float, seconds: float
) -> tuple[Callers, list[Callers], list[tuple[float, float]]]:
    """What became of the flood and of the others, and the server's memory."""
    began = time.perf_counter()
    flood, *others = (Callers(key, began) for key in service.keys)
    async with sampled(lambda: service.server.resident, 0.1) as samples, asyncio.TaskGroup() as group:
        group.create_task(flood.at_rate(stubs, capacity, 0, SETTLING))
        group.create_task(flood.at_rate(stubs, capacity * (TIMES - OTHERS * MODEST), SETTLING, seconds))
        for other in others:
            group.create_task(other.at_rate(stubs, capacity * MODEST, SETTLING, seconds))
    return flood, others, samples


def report(name: str, callers: list[Callers], seconds: float) -> None:
    every = [ended for one in callers for ended, begin, _ in one.calls if begin > SETTLING]
    waits = [wait for one in callers for wait in one.seconds("OK")]
    refusals = [wait for one in callers for wait in one.seconds("OVERLOADED")]
    goodput = sum(one.rate("OK", seconds) for one in callers)
    print(
        f"{name:<16} {len(every) / (seconds - SETTLING):>12.1f} {goodput:>10.1f} {percentile(waits, 50):>14.3f} "
        f"{percentile(refusals, 50) * 1000:>20.1f} {percentile(refusals, 99) * 1000:>9.1f}  "
        f"{dict(Counter(every))}",
        flush=True,
    )


def draw(path: Path, callers: list[Callers], samples: list[tuple[float, float]], capacity: float) -> None:
    seconds = range(int(samples[-1][0]))
    with plot(path, "Overload at ten times the capacity", "seconds", "a second; MiB") as axes:
        for ended, label in (("OK", "answered"), ("OVERLOADED", "refused")):
            each = Counter(int(end) for one in callers for what, _, end in one.calls if what == ended)
            axes.plot(seconds, [each[second] for second in seconds], label=f"calls {label}")
        axes.axhline(capacity, linestyle=":", color="gray", label="answered at capacity")
        axes.plot(*zip(*samples, strict=True), label="resident memory of the service, MiB")


async def main(places: int, delay: float, seconds: float, picture: Path | None) -> None:
    serving = rig(f"delay={delay}", 1 + OTHERS, max_in_flight=places)
    async with serving as service, service.stubs(CHANNELS) as stubs:
        capacity = await at_capacity(service, stubs, places, SETTLING + 10)
        print(f"{places} places, {delay} s each: {places / delay:.1f} calls a second; at capacity {capacity:.1f}")
        used, own = service.server.cpu_seconds, time.process_time()
        flood, others, samples = await overload(service, stubs, capacity, seconds)
        used, own = service.server.cpu_seconds - used, time.process_time() - own
    print(f"{'':<16} {'calls / s':>12} {'OK / s':>10} {'median OK, s':>14} {'median refusal, ms':>20} {'99 %, ms':>9}")
    report("flood", [flood], seconds)
    report(f"{OTHERS} others", others, seconds)
    report("all", [flood, *others], seconds)
    settled = [sample for sample in samples if SETTLING < sample[0] <= seconds]
    goodput = sum(one.rate("OK", seconds) for one in (flood, *others))
    print(f"goodput {goodput / capacity:.0%} of that at capacity")
    print(
        f"memory {settled[0][1]:.1f} to {settled[-1][1]:.1f} MiB, {slope(settled) * 60:+.2f} MiB a minute; "
        f"service {used / seconds:.0%} of a processor, callers {own / seconds:.0%}"
    )
    if picture:
        draw(picture, [flood, *others], samples, capacity)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=96, help="tools that may run at the same time")
    parser.add_argument("--delay", type=float, default=2.0, help="seconds that the upstream takes")
    parser.add_argument("--seconds", type=float, default=SETTLING + 30, help="how long the overload lasts")
    parser.add_argument("--plot", type=Path, help="draw it into this file; needs matplotlib")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.places, arguments.delay, arguments.seconds, arguments.plot))
