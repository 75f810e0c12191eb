"""How much longer many calls at once take than one: service and stand-in in one process, callers in another.

Run with ``make bench``. The figure that counts is the ratio of the last column, within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time

import uvloop

from agenta_ai import Client

TEMPLATE = {"messages": [{"role": "user", "content": "Please translate {{text}} into {{language}}. " * 40}]}
LISTENING = "Agenta AI services on "
KEY = "  export AGENTA_AI_API_KEY="


async def seconds_of_a_call(client: Client) -> float:
    began = time.perf_counter()
    await client.refine_prompt(TEMPLATE)
    return time.perf_counter() - began


async def measure(address: str, key: str, delay: float, counts: list[int]) -> None:
    async with Client(address, api_key=key) as client:
        await client.status()
        print(f"{'calls at once':>13} {'all, s':>8} {'median, s':>10} {'slowest, s':>11} {'all / upstream':>15}")
        for count in counts:
            began = time.perf_counter()
            each = await asyncio.gather(*(seconds_of_a_call(client) for _ in range(count)))
            total = time.perf_counter() - began
            middle, slowest = statistics.median(each), max(each)
            print(f"{count:>13} {total:>8.3f} {middle:>10.3f} {slowest:>11.3f} {total / delay:>15.2f}")


async def after(start: str, lines: asyncio.StreamReader) -> str:
    """The rest of the first line that begins so."""
    async for line in lines:
        if line.decode().startswith(start):
            return line.decode().removeprefix(start).strip()
    raise SystemExit("the server has not started")


async def main(delay: float, counts: list[int]) -> None:
    program = [sys.executable, "-c", "from agenta_ai_server.cli import main; main()", "dev", "--listen", "127.0.0.1:0"]
    quiet = {"AGENTA_AI_GRPC_LIMITS": "off", "AGENTA_AI_GRPC_LOG_LEVEL": "warning"}
    server = await asyncio.create_subprocess_exec(
        *program, "--fault", f"delay={delay}", stdout=asyncio.subprocess.PIPE, env={**os.environ, **quiet}
    )
    assert server.stdout
    try:
        address = (await after(LISTENING, server.stdout)).partition(",")[0]
        await measure(address, await after(KEY, server.stdout), delay, counts)
    finally:
        server.terminate()
        await server.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that the upstream takes")
    parser.add_argument("counts", type=int, nargs="*", default=[1, 50, 200, 1000], help="calls at once")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.delay, arguments.counts))
