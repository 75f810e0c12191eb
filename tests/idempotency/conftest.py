"""A real Redis on a socket of its own, and replicas that share it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.redis import RedisStore
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path
    from typing import TypeAlias

    MakeReplicas: TypeAlias = Callable[..., Coroutine[Any, Any, list[InFlightCalls]]]

LEASE = 1.0


def result(text: str, *, keep: bool = True) -> ToolOutcome:
    """What a tool brings; kept for repeats unless it may be run again."""
    return ToolOutcome(text, failure=None if keep else ToolFailure(Reason.UPSTREAM_UNAVAILABLE, retryable=True))


class RedisServer:
    """One ``redis-server`` that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert any(b"ready to accept" in line.lower() for line in self.process.stdout)

    def do(self, *command: str | int) -> Any:
        with SyncRedis.from_url(self.url) as client:
            return client.execute_command(*command)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stand still; what is sent meanwhile is heard afterwards."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    try:
        yield server
    finally:
        server.stop()


async def is_followed_by_anybody(server: RedisServer) -> None:
    """Return when somebody waits for a run in another replica."""
    async with Redis.from_url(server.url) as redis, asyncio.timeout(10):
        while not await redis.keys("*:follower"):  # noqa: ASYNC110  # another replica says nothing when it changes
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replica(
    url: str, linger: float = 0.3, timeout: float = 0.5, max_connections: int = 50, **options: Any
) -> AsyncIterator[tuple[InFlightCalls, RedisStore]]:
    """The runs of one replica; their work may take 30 seconds."""
    client = RedisClient(url, timeout=timeout, max_connections=max_connections)
    store = RedisStore(client, **{"lease_seconds": LEASE, **options})
    await store.connect()
    runs = InFlightCalls(store, max_seconds=30, linger=linger)
    try:
        yield runs, store
    finally:
        await runs.aclose()
        await store.aclose()
        await client.aclose()


@pytest.fixture
async def replicas(redis_server: RedisServer) -> AsyncIterator[MakeReplicas]:
    """Makes replicas that share the Redis."""
    async with AsyncExitStack() as stack:

        async def make(count: int, **options: Any) -> list[InFlightCalls]:
            return [(await stack.enter_async_context(replica(redis_server.url, **options)))[0] for _ in range(count)]

        yield make
