"""What the Redis limiter promises beside its arithmetic, with a real Redis."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trustme
from redis_server import RedisServer

from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.limits.limiter import Limit, StoreFailed
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.needs("redis-server")

LIMIT = Limit(10, 30)
ONCE = Limit(1, 0.01)
AT_ONCE = 64


@pytest.fixture
async def limiter(redis: RedisServer) -> AsyncIterator[RedisLimiter]:
    client = RedisClient(redis.url, timeout=10)
    limiter = RedisLimiter(client)
    await limiter.connect()
    yield limiter
    await client.aclose()


async def test_a_burst_by_the_stores_own_clock(limiter: RedisLimiter) -> None:
    burst = [await limiter.take("a", LIMIT) for _ in range(12)]
    assert [decision.allowed for decision in burst] == [True] * 10 + [False] * 2
    assert [decision.remaining for decision in burst] == [*range(9, -1, -1), 0, 0]
    assert 0 < burst[-1].delay <= 2
    assert 18 < burst[-1].reset <= 20
    assert not (await limiter.peek("a", LIMIT)).allowed
    assert (await limiter.peek("b", LIMIT)).remaining == 10
    assert limiter.state is StoreState.SHARED


async def test_a_check_is_one_command(redis: RedisServer, limiter: RedisLimiter) -> None:
    await limiter.take("a", LIMIT)
    redis.do("CONFIG", "RESETSTAT")
    for _ in range(5):
        await limiter.take("a", LIMIT)
        await limiter.peek("a", LIMIT)
    stats = redis.do("INFO", "commandstats")
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    inside = {"get": 10, "set": 5, "time": 10}
    assert {name: count for name, count in calls.items() if name in ("evalsha", *inside)} == {"evalsha": 10, **inside}
    assert not {"ping", "eval", "script|load", "script"} & set(calls)


async def test_keys_expire_when_their_bucket_is_full_and_not_before(redis: RedisServer, limiter: RedisLimiter) -> None:
    for _ in range(15):
        await limiter.take("a", LIMIT)
        full_at = int(redis.do("GET", "agenta-ai:limit:a"))
        assert 0 <= redis.do("PEXPIRETIME", "agenta-ai:limit:a") - full_at / 1000 < 1
    await limiter.peek("looked at", LIMIT)
    assert b"agenta-ai:limit:looked at" not in redis.do("KEYS", "*")


async def test_a_clock_that_was_set_back_costs_no_more_than_an_empty_bucket(
    redis: RedisServer, limiter: RedisLimiter
) -> None:
    redis.do("SET", "agenta-ai:limit:a", 8_000_000_000_000_000)
    quick = Limit(2, 60_000)
    assert (await limiter.take("a", quick)).reset == 0.002
    async with asyncio.timeout(5):
        while not (await limiter.take("a", quick)).allowed:
            pass


async def test_a_script_that_is_gone_is_brought_again(redis: RedisServer, limiter: RedisLimiter) -> None:
    for command in ("SCRIPT", "FLUSH"), ("FLUSHALL",):
        redis.do(*command)
        assert (await limiter.take("a", LIMIT)).allowed


async def test_a_restart_is_noticed_before_anything_is_sent(redis: RedisServer, limiter: RedisLimiter) -> None:
    await asyncio.gather(*(limiter.take("a", LIMIT) for _ in range(AT_ONCE)))
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    decisions = await asyncio.gather(*(limiter.take("a", LIMIT) for _ in range(AT_ONCE)))
    assert sum(decision.allowed for decision in decisions) == 10


async def until_it_works(limiter: RedisLimiter) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreFailed):
                await limiter.connect()
                await limiter.take("b", LIMIT)
                break


async def test_a_frozen_store_takes_no_longer_than_the_time_out(redis: RedisServer) -> None:
    client = RedisClient(redis.url, timeout=0.2)
    limiter = RedisLimiter(client)
    await until_it_works(limiter)
    redis.freeze()
    began = time.monotonic()
    failures = await asyncio.gather(*(limiter.take("a", LIMIT) for _ in range(AT_ONCE)), return_exceptions=True)
    # One after the other, they would take 10 s.
    assert time.monotonic() - began < 5
    assert all(isinstance(failure, StoreFailed) and failure.timed_out for failure in failures)
    redis.thaw()
    await until_it_works(limiter)
    await client.aclose()


async def test_a_check_that_is_cancelled_leaves_nothing_behind(limiter: RedisLimiter) -> None:
    """An answer that reaches the wrong check would say that a new bucket is empty."""
    chance = random.Random(7)
    for batch in range(40):
        tasks = [
            asyncio.create_task(limiter.take(f"{batch} {number}", Limit(number + 1, 0.01))) for number in range(AT_ONCE)
        ]
        for task in chance.sample(tasks, AT_ONCE // 2):
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) or getattr(answer, "remaining", None) == number
    assert (await limiter.take("after", LIMIT)).remaining == 9


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ([("REPLICAOF", "127.0.0.1", 1)], "ReadOnlyError"),
        ([("CONFIG", "SET", "maxmemory", 1)], "OutOfMemoryError"),
        ([("HSET", "agenta-ai:limit:a", "b", "c")], "ResponseError"),
        ([("ACL", "SETUSER", "default", "-evalsha")], "NoPermissionError"),
    ],
)
async def test_what_the_store_refuses_is_its_failure(
    redis: RedisServer, limiter: RedisLimiter, commands: list[tuple[str | int, ...]], why: str
) -> None:
    for command in commands:
        redis.do(*command)
    with pytest.raises(StoreFailed) as raised:
        await limiter.take("a", LIMIT)
    assert (raised.value.why, raised.value.timed_out) == (why, False)


async def test_nothing_tells_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path, "--requirepass", "s3cret")
    server.start()
    try:
        right = RedisClient(server.url.replace("//", "//:s3cret@"), timeout=30)
        assert (await RedisLimiter(right).take("a", LIMIT)).allowed
        await right.aclose()
        wrong = RedisClient(server.url.replace("//", "//:wr0ng@"), timeout=30)
        with pytest.raises(StoreFailed) as raised:
            await RedisLimiter(wrong).connect()
        await wrong.aclose()
    finally:
        server.kill()
    assert raised.value.why == "AuthenticationError"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    for text in (repr(right), repr(wrong), str(raised.value), repr(raised.value), caplog.text):
        assert "s3cret" not in text
        assert "wr0ng" not in text


async def test_tls_checks_whom_it_talks_to(tmp_path: Path) -> None:
    authority, files = trustme.CA(), {name: tmp_path / name for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(files["key"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    options = ["--port", "0", "--tls-auth-clients", "no", "--tls-ca-cert-file", str(files["ca"])]
    options += ["--tls-cert-file", str(files["cert"]), "--tls-key-file", str(files["key"])]
    server = RedisServer(tmp_path, *options, scheme="rediss", port_option="--tls-port")
    server.start()
    try:
        known = RedisClient(f"{server.url}?ssl_ca_certs={files['ca']}", timeout=30)
        assert (await RedisLimiter(known).take("a", LIMIT)).allowed
        for url in (server.url, f"{server.url}?ssl_ca_certs={files['ca']}".replace("127.0.0.1", "localhost")):
            stranger = RedisClient(url, timeout=30)
            with pytest.raises(StoreFailed) as raised:
                await RedisLimiter(stranger).connect()
            assert raised.value.why == "SSLCertVerificationError"
            await stranger.aclose()
        await known.aclose()
    finally:
        server.kill()


HAMMER = """
import asyncio, sys
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient

async def main(url, burst, per_minute):
    client = RedisClient(url, timeout=30)
    limiter = RedisLimiter(client)
    await limiter.connect()
    print("ready", flush=True)
    sys.stdin.readline()
    async def hammer():
        return sum([(await limiter.take("a", Limit(burst, per_minute))).allowed for _ in range(40)])
    print(sum(await asyncio.gather(*(hammer() for _ in range(50)))))
    await client.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


@pytest.mark.parametrize("limit", [Limit(1000, 0.01), Limit(1000, 6000)], ids=["no refill", "refill"])
async def test_four_processes_admit_exactly_what_one_would(
    redis: RedisServer, limiter: RedisLimiter, limit: Limit
) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HAMMER, redis.url, str(limit.burst), str(limit.per_minute)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
    # Half of the burst goes ahead, so that the bucket isn't full before they begin.
    for _ in range(500):
        assert (await limiter.take("a", limit)).allowed
    began_full_at = int(redis.do("GET", "agenta-ai:limit:a"))
    answers = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    ended_full_at = int(redis.do("GET", "agenta-ai:limit:a"))
    admitted = sum(int(answer) for answer, _ in answers)
    # The bucket was never full in between, so each call that was admitted has put this off by one interval.
    assert admitted * limit.interval == ended_full_at - began_full_at
    assert admitted == 500 if limit.per_minute < 1 else admitted > 500
