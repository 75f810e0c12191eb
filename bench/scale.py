"""Calls a second over several processes that share a port, by the connections that carry them.

The kernel gives each connection to one process, by chance: fewer connections than processes leave some of them idle.
Nothing is pinned, so that generator and upstream take their part of the cores.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import uvloop
from bench.generators import Load
from bench.servers import Server, bench, save

PROCESSES = (1, 2, 4)
CONNECTIONS = (1, 4, 16, 64)
IN_FLIGHT = 64
# A process that had less than this share of the work had no connection.
IDLE_SHARE = 0.02


async def measure(server: Server, load: Load) -> dict[str, float]:
    """As :meth:`Server.measure`, and besides how many processes were ``idle``, and the ``busiest`` one's share."""
    used = [program.cpu_seconds for program in server.programs]
    measured = await server.measure(load)
    used = [program.cpu_seconds - before for program, before in zip(server.programs, used, strict=True)]
    shares = [each / sum(used) for each in used]
    return {**measured, "idle": sum(share < IDLE_SHARE for share in shares), "busiest": max(shares)}


async def main(rounds: int, seconds: float) -> int:
    rows: dict[tuple[int, int], list[dict[str, float]]] = {}
    async with bench(pinned=False) as start:
        servers = {count: await start.replicas(count) for count in PROCESSES}
        for _ in range(rounds):
            for processes, server in servers.items():
                for connections in CONNECTIONS:
                    measured = await measure(server, Load(seconds, in_flight=IN_FLIGHT, connections=connections))
                    rows.setdefault((processes, connections), []).append(measured)
                    print(server.name, connections, measured, sep="; ", flush=True)
    results: dict[str, Any] = {
        "in_flight": IN_FLIGHT,
        "rows": [
            {"processes": processes, "connections": connections, "rounds": each}
            for (processes, connections), each in rows.items()
        ],
    }
    return save("scale", results, list(servers.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement")
    arguments = parser.parse_args()
    sys.exit(uvloop.run(main(arguments.rounds, arguments.seconds)))
