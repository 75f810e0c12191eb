"""What Redis says, and what is wrong with it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agenta_ai_server.checks.shared import Found, failed, ok, warning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis

    from agenta_ai_server.settings import Settings

SECONDS = 3.0
# Of which the middle one counts.
PINGS = 5
# What limits and repeats need: a script that writes.
SCRIPT = "return redis.call('SET', KEYS[1], '', 'PX', 1000)"
SCRIPT_KEY = "agenta-ai:check"
# By the names of the client's exceptions, which is what can be told without their texts.
FAILURES = {
    "AuthenticationError": (
        "It refuses the user or the password.",
        "Correct them in AGENTA_AI_GRPC_REDIS_URL: redis://user:password@host:6379/0.",
    ),
    "ReadOnlyError": (
        "It is a replica, which can't be written.",
        "Set AGENTA_AI_GRPC_REDIS_URL to the address of the primary.",
    ),
    "OutOfMemoryError": ("Its memory is full.", "Raise its maxmemory, or remove what else is in it."),
    "BusyLoadingError": ("It is still loading its data.", "Wait, and check again."),
    "SSLError": (
        "Its certificate isn't trusted, or it has no TLS.",
        "Renew one that has expired. For an authority of your own, add ?ssl_ca_certs=FILE to AGENTA_AI_GRPC_REDIS_URL.",
    ),
    "FileNotFoundError": (
        "A file that its URL names isn't there.",
        "Correct the path in AGENTA_AI_GRPC_REDIS_URL; if it is Redis' own socket, see that it runs.",
    ),
    "ResponseError": (
        "It refuses scripts that write.",
        "Let its user run them: ACL SETUSER … ~agenta-ai:* +@scripting +@read +@write +ping.",
    ),
}
NO_DATABASE = (
    "It has no database of this number.",
    "Correct the number in AGENTA_AI_GRPC_REDIS_URL, redis://host:6379/0, or raise databases in Redis.",
)
UNREACHABLE = (
    "It can't be reached.",
    "See that it runs; correct host and port in AGENTA_AI_GRPC_REDIS_URL, with rediss:// if it has TLS.",
)


async def redis(settings: Settings) -> AsyncIterator[Found]:
    """Whether limits and repeats can be kept there."""
    if settings.redis_url is None:
        if settings.reuse_port:
            yield warning(
                "Processes that share the port count rate limits and know request_ids each for itself.",
                "Set AGENTA_AI_GRPC_REDIS_URL.",
            )
        return
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        yield failed("The package redis isn't installed.", "pip install 'agenta-ai[redis]'")
        return
    try:
        url = settings.redis_url.get_secret_value()
        client = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
        # Only now an unknown parameter shows.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        yield failed("A parameter of its URL is unknown or wrong.", "Correct AGENTA_AI_GRPC_REDIS_URL behind its ?.")
        return
    try:
        async with asyncio.timeout(SECONDS):
            async for found in _redis(client, settings.redis_timeout_seconds):
                yield found
    except (RedisError, OSError, TimeoutError) as error:
        yield _failed(error)
    finally:
        await client.aclose()


async def _redis(client: Redis, timeout_seconds: float) -> AsyncIterator[Found]:
    await client.ping()
    await client.eval(SCRIPT, 1, SCRIPT_KEY)
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.ping()
        times.append(time.perf_counter() - began)
    latency = sorted(times)[PINGS // 2]
    said = f"It answers in {latency * 1000:.1f} ms"
    if latency > timeout_seconds / 2:
        yield warning(
            f"{said}, and has {timeout_seconds * 1000:g} ms.",
            "Bring it nearer, or raise AGENTA_AI_GRPC_REDIS_TIMEOUT_SECONDS.",
        )
    else:
        yield ok(f"{said}, and runs scripts.")
    policy = await _eviction_policy(client)
    if policy != "noeviction":
        yield warning(
            f"Its maxmemory-policy is {policy}: with a result that it evicts, a repeat is paid for twice.",
            "Set maxmemory-policy to noeviction in Redis.",
        )


async def _eviction_policy(client: Redis) -> str:
    from redis.exceptions import ResponseError

    try:
        return str((await client.info("memory")).get("maxmemory_policy", "noeviction"))
    except ResponseError:
        # This user mayn't ask, and needn't for anything else.
        return "noeviction"


def _failed(error: Exception) -> Found:
    # Alone of the answers it has no name of its own.
    if "DB index" in str(error):
        return failed(*NO_DATABASE)
    known = (FAILURES[name] for name in _names(error) if name in FAILURES)
    return failed(*next(known, UNREACHABLE))


def _names(error: BaseException | None) -> Iterator[str]:
    """Return the names of its classes, and then of what it came from: the client wraps errors of the connection."""
    while error:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = error.__context__
