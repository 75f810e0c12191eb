"""What a check of the rate limit costs: in memory, on Redis, and while Redis is down; and what a million callers cost.

Needs redis-server on the PATH. Nothing of it is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from typing import TYPE_CHECKING

import uvloop

from agenta_ai_server.limits.fallback import FallbackLimiter
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.limits.limiter import RateLimiter

LIMIT = Limit(10, 30)
AT_ONCE = 50


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()


async def measure(name: str, limiter: RateLimiter, keys: list[str], count: int) -> None:
    each = []
    for number in range(count):
        began = time.perf_counter()
        await limiter.take(keys[number % len(keys)], LIMIT)
        each.append((time.perf_counter() - began) * 1e6)

    async def caller(first: int) -> None:
        for number in range(first, count, AT_ONCE):
            await limiter.take(keys[number % len(keys)], LIMIT)

    began = time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(AT_ONCE)))
    rate = count / (time.perf_counter() - began)
    each.sort()
    print(f"{name:<28} {statistics.median(each):>10.1f} {each[int(count * 0.999)]:>12.1f} {rate:>26,.0f}", flush=True)


async def checks(count: int) -> None:
    print(f"{'a check':<28} {'median, µs':>10} {'99.9 %, µs':>12} {f'checks a second, {AT_ONCE} at once':>26}")
    one, many = ["caller"], [f"caller {number}" for number in range(count)]
    await measure("memory, one caller", MemoryLimiter(), one, count)
    await measure("memory, new callers", MemoryLimiter(), many, count)
    await measure("memory, new callers, no room", MemoryLimiter(count // 10), many, count)
    with redis_server() as (url, process):
        client = RedisClient(url)
        limiter = FallbackLimiter(RedisLimiter(client), MemoryLimiter())
        await limiter.connect()
        await measure("Redis, one caller", limiter, one, count)
        await measure("Redis, new callers", limiter, many, count)
        process.kill()
        process.wait()
        await measure("Redis down", limiter, many, count)
        await limiter.aclose()
        await client.aclose()


async def callers(count: int) -> None:
    print(f"\n{f'{count:,} callers, one call each':<32} {'remembered':>12} {'MiB':>8}")
    for max_keys in (100_000, count):
        tracemalloc.start()
        memory = MemoryLimiter(max_keys, clock=lambda: 0.0)
        for number in range(count):
            await memory.take(f"{number:032x}", LIMIT)
        size = tracemalloc.get_traced_memory()[0] / 2**20
        tracemalloc.stop()
        print(f"{f'room for {max_keys:,}':<32} {len(memory):>12,} {size:>8.1f}", flush=True)


async def main(count: int, distinct: int) -> None:
    await checks(count)
    await callers(distinct)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=10_000, help="checks of each kind")
    parser.add_argument("--callers", type=int, default=300_000, help="distinct callers")
    arguments = parser.parse_args()
    logging.disable()
    uvloop.run(main(arguments.checks, arguments.callers))
