"""What processes share, and processes that share it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
from agenta_ai_server.idempotency import sqlite
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.sqlite import SqliteLedger
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.redis.client import RedisClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import TypeAlias

    from redis_server import RedisServer

    MakeReplicas: TypeAlias = Callable[..., Coroutine[Any, Any, list[InFlightCalls]]]

# Longer than a busy machine lets a process stand still.
LEASE = 10.0


def result(text: str = "result", *, keep: bool = True) -> ToolOutcome:
    """An outcome that is kept for repeats, or one of a failure that isn't."""
    return ToolOutcome(text, failure=None if keep else ToolFailure(Reason.UPSTREAM_RATE_LIMITED, retryable=True))


class Backing(Protocol):
    """Where the ledgers of several processes meet."""

    @property
    def url(self) -> str: ...

    @asynccontextmanager
    def ledger(self, ttl: float = 600, lease: float = LEASE) -> AsyncIterator[RedisLedger | SqliteLedger]: ...

    def unavailable(self) -> AbstractContextManager[None]:
        """Let all that is asked fail by its time-out."""

    def time_out_soon(self) -> None:
        """Have later ledgers time out soon; without it they wait for as long as a busy machine takes."""


class RedisBacking:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = server.url
        self.timeout = 20.0

    @asynccontextmanager
    async def ledger(self, ttl: float = 600, lease: float = LEASE) -> AsyncIterator[RedisLedger]:
        client = RedisClient(self.url, timeout=self.timeout)
        yield RedisLedger(client, ttl, lease=lease)
        await client.aclose()

    def unavailable(self) -> AbstractContextManager[None]:
        return self.server.frozen()

    def time_out_soon(self) -> None:
        self.timeout = 1.5


class SqliteBacking:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.url = str(path)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 20)

    def time_out_soon(self) -> None:
        self._monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 1.5)

    @asynccontextmanager
    async def ledger(self, ttl: float = 600, lease: float = LEASE) -> AsyncIterator[SqliteLedger]:
        yield SqliteLedger(self.path, ttl, lease=lease)

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        other = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def backing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backing]:
    if request.param == "redis":
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is missing")
        yield RedisBacking(request.getfixturevalue("redis"))
    else:
        yield SqliteBacking(tmp_path / "ids.db", monkeypatch)


@asynccontextmanager
async def store_on(
    backing: Backing, *, ttl: float = 600, lease: float = LEASE, **options: Any
) -> AsyncIterator[LedgerStore]:
    """The store of one process."""
    async with backing.ledger(ttl, lease) as ledger:
        store = LedgerStore(ledger, ttl=ttl, lease=lease, **options)
        await store.start()
        try:
            yield store
        finally:
            await store.aclose()


@pytest.fixture
async def replicas(backing: Backing) -> AsyncIterator[MakeReplicas]:
    """Makes the runs of processes that share the backing; their work may take 30 seconds."""
    async with AsyncExitStack() as stack:

        async def make(count: int, *, linger: float = 0.3, **options: Any) -> list[InFlightCalls]:
            made = []
            for _ in range(count):
                store = await stack.enter_async_context(store_on(backing, **options))
                made.append(InFlightCalls(store, linger=linger))
                stack.push_async_callback(made[-1].aclose)
            return made

        yield make


async def until(holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110  # another process says nothing when it changes
            await asyncio.sleep(0.01)
