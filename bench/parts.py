"""What the parts of the service cost: each left out in turn, beside all of them; its start and its memory.

The variants take turns in every round, and each is compared with the whole of the same round.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from bench.generators import Load
from bench.servers import COMMAND, Bench, Server, bench, save
from bench.tools import tools_file

ALL = "all on"
IN_FLIGHT = 32
TOOLS = 500
LONG_DELAY = 2.0


async def variants(start: Bench) -> list[Server]:
    """The whole first."""
    # It takes the traces, and does nothing with them.
    _, collector = await start.beside("quick")
    traced: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}", "OTEL_TRACES_SAMPLER": "always_on"}
    return [
        await start.service(ALL),
        await start.service("without API keys", auth="none", api_keys_file=""),
        await start.service("without rate limits", limits="off"),
        await start.service("without the breaker", breaker="off"),
        await start.service("without metrics", metrics_listen=""),
        await start.service("with request_ids", with_ids=True),
        await start.service("with traces", **traced),
    ]


async def in_turns(servers: list[Server], rounds: int, seconds: float) -> dict[str, list[float]]:
    """CPU time of a call in each round, in ms."""
    costs: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            measured = await server.measure(Load(seconds, in_flight=IN_FLIGHT))
            costs[server.name].append(measured["cpu_ms"])
            print(server.name, measured, sep="; ", flush=True)
    return costs


async def starts(start: Bench, count: int) -> dict[str, list[float]]:
    """Seconds."""
    client = str(Path(sys.executable).with_name("agenta-ai"))
    with TemporaryDirectory() as folder:
        file = tools_file(Path(folder), TOOLS)
        with_tools = [await start.seconds_to_serving(tools_file=file) for _ in range(count)]
    return {
        "serving": [await start.seconds_to_serving() for _ in range(count)],
        f"serving {TOOLS} tools": with_tools,
        "agenta-ai-server --help": [await start.seconds_of(COMMAND, "--help") for _ in range(count)],
        "agenta-ai --help": [await start.seconds_of(client, "--help") for _ in range(count)],
    }


async def main(rounds: int, seconds: float, many: int) -> int:
    async with bench() as start:
        begins = await starts(start, 2 * rounds + 1)
        plain = await start.service("memory", metrics_listen="")
        await start.delay(LONG_DELAY)
        memory = await plain.memory(Load(seconds, in_flight=many))
        print("memory", memory, sep="; ", flush=True)
        await start.delay(0)
        servers = await variants(start)
        costs = await in_turns(servers, rounds, seconds)
    results: dict[str, Any] = {
        "starts": begins, "memory": {"in_flight": many, **memory}, "costs": costs,
    }  # fmt: skip
    return save("parts", results, [plain, *servers])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement")
    parser.add_argument("--many", type=int, default=2000, help="slow calls in flight")
    arguments = parser.parse_args()
    sys.exit(uvloop.run(main(arguments.rounds, arguments.seconds, arguments.many)))
