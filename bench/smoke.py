"""Starts, calls and measures for a moment every server that compare.py and parts.py compare. Times nothing."""

from __future__ import annotations

import sys

import uvloop
from bench.compare import every
from bench.generators import Load
from bench.parts import variants
from bench.servers import bench

LOADS = (Load(0.2, in_flight=4), Load(0.2, rate=20))


async def main() -> int:
    async with bench() as start:
        servers = [*await every(start), *await variants(start)]
        for server in servers:
            for load in LOADS:
                measured = await server.measure(load)
                print(f"{server.name}: {measured['calls']} calls")
    for server in servers:
        for failure in server.failures:
            print(f"{server.name}: {failure}", file=sys.stderr)
    return 1 if any(server.failures for server in servers) else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
