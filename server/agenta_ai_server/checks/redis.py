"""Checks of Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agenta_ai_server.checks.shared import Found, failed, ok, warning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.redis.client import RedisClient
    from agenta_ai_server.settings import Settings

SECONDS = 3.0
# The median counts.
PINGS = 5
# Exactly what the service needs, as a test with such a user shows; INFO is for this check.
COMMANDS = (
    *("eval", "evalsha", "ping", "select", "info", "time", "get", "set", "del", "exists"),
    *("hexists", "hget", "hmget", "hset", "pexpire", "pttl"),
)
ACL = f"ACL SETUSER agenta-ai on >PASSWORD ~agenta-ai:* {' '.join(f'+{name}' for name in COMMANDS)}"
NOT_PERMITTED = ("Its user may not run the scripts of rate limits and repeats.", f"Set its permissions: {ACL}")
# By the names of the client library's exceptions.
FAILURES = {
    "AuthenticationError": (
        "It rejects the user or the password.",
        "Correct them in AGENTA_AI_GRPC_REDIS_URL: redis://user:password@host:6379/0.",
    ),
    "ReadOnlyError": (
        "It is a replica, which is read-only.",
        "Set AGENTA_AI_GRPC_REDIS_URL to the address of the primary.",
    ),
    "OutOfMemoryError": ("Its memory is full.", "Raise its maxmemory, or remove other data."),
    "BusyLoadingError": ("It is still loading its data.", "Wait, and check again."),
    "SSLError": (
        "Its certificate isn't trusted, or it has no TLS.",
        "Renew it if it has expired. For an authority of your own, add ?ssl_ca_certs=FILE to AGENTA_AI_GRPC_REDIS_URL.",
    ),
    "FileNotFoundError": (
        "A file in its URL doesn't exist.",
        "Correct the path in AGENTA_AI_GRPC_REDIS_URL; if it is Redis's socket, check that Redis is running.",
    ),
    "NoPermissionError": NOT_PERMITTED,
    "ResponseError": NOT_PERMITTED,
    "UnexpectedAnswer": (
        "Its scripts don't behave as in Redis 7 or Valkey.",
        "Set AGENTA_AI_GRPC_REDIS_URL to the address of Redis 7 or later, or of Valkey.",
    ),
    "NoSuchDatabaseError": (
        "It has no database with this number.",
        "Correct the number in AGENTA_AI_GRPC_REDIS_URL, redis://host:6379/0, or raise databases in Redis.",
    ),
}
FAILURES["SSLCertVerificationError"] = FAILURES["SSLError"]
UNREACHABLE = (
    "It can't be reached.",
    "Check that it is running; correct host and port in AGENTA_AI_GRPC_REDIS_URL, with rediss:// if it has TLS.",
)


async def redis(settings: Settings) -> AsyncIterator[Found]:
    """Check that Redis can store rate limits and results."""
    if settings.redis_url is None:
        if settings.reuse_port:
            alone = "count rate limits" if settings.idempotency_file else "count rate limits and know request_ids"
            yield warning(f"Processes that share the port each {alone} on their own.", "Set AGENTA_AI_GRPC_REDIS_URL.")
        return
    try:
        from agenta_ai_server.redis.client import RedisClient, RedisFailed
    except ModuleNotFoundError:
        yield failed(
            "The package redis isn't installed.", "Install the extra 'redis': in a clone, pip install '.[redis]'."
        )
        return
    client = RedisClient(settings.redis_url.get_secret_value(), timeout=SECONDS)
    try:
        async with asyncio.timeout(SECONDS):
            await _run_scripts(client)
            yield _slow_or_ok(await _latency(client))
            if settings.idempotency_file is None:
                async for found in _promises(client):
                    yield found
    except RedisFailed as failure:
        yield failed(*FAILURES.get(failure.why, UNREACHABLE))
    except TimeoutError:
        yield failed(*UNREACHABLE)
    finally:
        await client.aclose()


async def _promises(client: RedisClient) -> AsyncIterator[Found]:
    """Yield what makes Redis forget a request_id, so that a repeat is billed again."""
    policy = await _info(client, "memory", "maxmemory_policy")
    if policy not in ("", "noeviction"):
        yield warning(
            f"Its maxmemory-policy is {policy}: a call whose request_id it evicts can be billed twice.",
            "Set maxmemory-policy to noeviction in Redis.",
        )
    if await _info(client, "persistence", "aof_enabled") == "0":
        yield warning(
            "It isn't persistent (appendonly is no): after a restart, earlier calls can be billed twice.",
            "Set appendonly to yes in Redis. On a single machine, you can use AGENTA_AI_GRPC_IDEMPOTENCY_FILE instead "
            "of Redis.",
        )


async def _run_scripts(client: RedisClient) -> None:
    """Run what the service runs.

    Raises:
        RedisFailed: Something of it can't be run.
    """
    from agenta_ai_server.idempotency.redis import RedisLedger
    from agenta_ai_server.limits.limiter import StoreFailed
    from agenta_ai_server.limits.redis import RedisLimiter
    from agenta_ai_server.redis.client import RedisFailed

    try:
        await RedisLimiter(client).connect()
    except StoreFailed as failure:
        raise RedisFailed(failure.why, timed_out=failure.timed_out) from None
    await RedisLedger(client).probe()


async def _latency(client: RedisClient) -> float:
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.command("PING")
        times.append(time.perf_counter() - began)
    return sorted(times)[PINGS // 2]


def _slow_or_ok(latency: float) -> Found:
    from agenta_ai_server.redis.client import TIMEOUT_SECONDS

    said = f"It responds in {latency * 1000:.1f} ms"
    if latency > TIMEOUT_SECONDS / 2:
        return warning(f"{said}; the timeout is {TIMEOUT_SECONDS * 1000:g} ms.", "Run it closer to the server.")
    return ok(f"{said}, and runs the scripts of rate limits and repeats.")


async def _info(client: RedisClient, section: str, name: str) -> str:
    """Return a value of the server's; empty if it doesn't give it, or this user may not ask for it."""
    from agenta_ai_server.redis.client import RedisFailed

    try:
        answer = await client.command("INFO", section)
    except RedisFailed as failure:
        if failure.timed_out:
            raise
        return ""
    values = dict(line.partition(":")[::2] for line in answer.decode(errors="replace").splitlines())
    return str(values.get(name, ""))
