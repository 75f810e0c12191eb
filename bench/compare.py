"""The service beside its peers: what a call costs each of them, how long it takes, and what memory it holds.

The peers take turns in every round, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

import uvloop
from bench.generators import Load
from bench.servers import Bench, Server, bench, save

if TYPE_CHECKING:
    from collections.abc import Sequence

DELAYS = (0.0, 0.05)
IN_FLIGHT = (1, 32, 256)
# Beside an upstream that answers at once.
DELAYED = (0.05, 32)
RATE = 200
OPEN_ROUNDS = 2
LONG_DELAY = 2.0
# The pool of httpx, which all others use, scans its connections for each call: many calls would take them minutes.
WITH_OTHER_POOLS = ("service", "before", "ceiling")
FEWER = 300


async def every(start: Bench) -> list[Server]:
    """The peers, the service first."""
    before = await start.before()
    if before is None:
        print("The history lacks the state before the refactoring, as in a shallow clone: it is left out.", flush=True)
    return [
        await start.service(),
        *([before] if before else []),
        await start.rest("uvicorn"),
        await start.rest("granian"),
        await start.mcp("sdk", "MCP SDK"),
        await start.mcp("fastmcp", "FastMCP"),
        await start.connect(),
        await start.floor(),
        await start.ceiling(),
    ]


async def many_in_flight(start: Bench, servers: Sequence[Server], count: int, seconds: float) -> dict[str, Any]:
    """Memory and CPU time with at most so many slow calls in flight, of servers that have hardly been called before."""
    await start.delay(LONG_DELAY)
    results = {}
    for server in waiting(servers, LONG_DELAY):
        in_flight = count if server.name in WITH_OTHER_POOLS else min(count, FEWER)
        results[server.name] = {**await server.memory(Load(seconds, in_flight=in_flight)), "in_flight": in_flight}
        told(server.name, f"{in_flight} in flight", results[server.name])
    return results


async def closed_loops(
    start: Bench, servers: Sequence[Server], rounds: int, seconds: float, counts: Sequence[int]
) -> list[dict[str, Any]]:
    rows: dict[tuple[str, float, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for delay, count in (*((0.0, count) for count in counts), DELAYED):
            await start.delay(delay)
            for server in waiting(servers, delay):
                measured = await server.measure(Load(seconds, in_flight=count), delay)
                rows.setdefault((server.name, delay, count), []).append(measured)
                told(server.name, f"{count} in flight, delay {delay}", measured)
    return [
        {"peer": peer, "delay": delay, "in_flight": count, "rounds": measured}
        for (peer, delay, count), measured in rows.items()
    ]


async def open_loops(start: Bench, servers: Sequence[Server], rounds: int, seconds: float) -> list[dict[str, Any]]:
    rows: dict[tuple[str, float], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for delay in DELAYS:
            await start.delay(delay)
            for server in waiting(servers, delay):
                measured = await server.measure(Load(seconds, rate=RATE), delay)
                rows.setdefault((server.name, delay), []).append(measured)
                told(server.name, f"{RATE} a second, delay {delay}", measured)
    return [{"peer": peer, "delay": delay, "rounds": measured} for (peer, delay), measured in rows.items()]


def waiting(servers: Sequence[Server], delay: float) -> list[Server]:
    """Those that wait for the upstream, and if there is nothing to wait for the one that has none."""
    return [server for server in servers if server.name != "floor" or not delay]


def told(*what: object) -> None:
    print(*what, sep="; ", flush=True)


async def main(rounds: int, seconds: float, counts: Sequence[int], many: int) -> int:
    async with bench() as start:
        servers = await every(start)
        at_many = await many_in_flight(start, servers, many, seconds * 5)
        closed = await closed_loops(start, servers, rounds, seconds, counts)
        opened = await open_loops(start, servers, OPEN_ROUNDS, seconds * 3)
    results = {"many": {"in_flight": many, "peers": at_many}, "closed": closed, "open": opened, "rate": RATE}
    return save("compare", results, servers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.65, help="length of the shortest measurement")
    parser.add_argument("--many", type=int, default=2000, help="slow calls in flight")
    parser.add_argument("in_flight", type=int, nargs="*", default=IN_FLIGHT, help="calls in flight")
    arguments = parser.parse_args()
    sys.exit(uvloop.run(main(arguments.rounds, arguments.seconds, arguments.in_flight, arguments.many)))
