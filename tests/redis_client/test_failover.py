"""A failover in which the old primary lives on, and its connections stay open: only the address leads elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, cast

import pytest
from proxy import Proxy
from redis_server import RedisServer

from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.store import Leading, LedgerStore
from agenta_ai_server.limits.fallback import FallbackLimiter
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.redis import RedisLimiter
from agenta_ai_server.redis.client import RedisClient, RedisFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("redis-server")

LIMIT = Limit(1000, 1)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary, and the server that will take its place."""
    servers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        servers.append(RedisServer(tmp_path / name))
        servers[-1].start()
    yield servers[0], servers[1]
    for server in servers:
        server.kill()


def fail_over(proxy: Proxy, old: RedisServer, new: RedisServer) -> None:
    proxy.lead_to(f"127.0.0.1:{new.port}")
    # The role changes, and no connection is closed: REPLICAOF disconnects only the replicas of this server.
    old.do("REPLICAOF", "127.0.0.1", new.port)


async def test_ids_and_limits_go_on_within_seconds(pair: tuple[RedisServer, RedisServer]) -> None:
    old, new = pair
    async with Proxy(f"127.0.0.1:{old.port}") as proxy:
        client = RedisClient(f"redis://{proxy.target}/0", timeout=5)
        store = LedgerStore(RedisLedger(client))
        limiter = FallbackLimiter(RedisLimiter(client), MemoryLimiter(), every=0.05)
        # Many connections, so that one that is left over would be seen.
        await asyncio.gather(*(store.claim(f"before {number}", b"f") for number in range(40)))
        await asyncio.gather(*(limiter.take("a", LIMIT) for _ in range(40)))
        fail_over(proxy, old, new)
        await asyncio.gather(*(store.claim(f"during {number}", b"f") for number in range(40)), return_exceptions=True)
        claims = await asyncio.gather(*(store.claim(f"after {number}", b"f") for number in range(40)))
        assert all(isinstance(claim, Leading) for claim in claims)
        async with asyncio.timeout(15):
            while True:
                await limiter.take("a", LIMIT)
                if limiter.state is StoreState.SHARED:
                    break
                await asyncio.sleep(0.02)
        assert new.do("EXISTS", "agenta-ai:limit:a") == 1
        await limiter.aclose()
        await client.aclose()


class Answering(asyncio.Protocol):
    """Gives one answer to each PING of its connection; none at all to anything if it is mute."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return
        # What the library says of itself on a new connection gets an answer that doesn't matter.
        self._transport.write(b"+OK\r\n" * data.count(b"SETINFO") + self._answer * data.count(b"PING"))


@asynccontextmanager
async def answering(*answers: bytes | None, timeout: float = 30) -> AsyncIterator[RedisClient]:
    """A client of a server that gives the first answer on its first connection, and so on."""
    given = iter(answers)
    server = await asyncio.get_running_loop().create_server(lambda: Answering(next(given)), "127.0.0.1", 0)
    client = RedisClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=timeout)
    async with server:
        yield client
        await client.aclose()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"-READONLY You can't write against a read only replica.", "ReadOnlyError"),
        (b"-MASTERDOWN Link with MASTER is down", "MasterDownError"),
        (b"-LOADING Redis is loading the dataset in memory", "BusyLoadingError"),
        (b"-MOVED 3999 127.0.0.1:6381", "MovedError"),
        (b"-CLUSTERDOWN The cluster is down", "ClusterDownError"),
        (b"-NOREPLICAS Not enough good replicas to write.", "ResponseError"),
        (b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write", "ResponseError"),
    ],
)
async def test_an_error_that_means_the_wrong_server_opens_a_new_connection(answer: bytes, why: str) -> None:
    async with answering(answer + b"\r\n", b"+PONG\r\n") as client:
        with pytest.raises(RedisFailed) as raised:
            await client.command("PING")
        assert raised.value.why == why
        assert await client.command("PING") == b"PONG"


async def test_another_error_keeps_the_connection() -> None:
    async with answering(b"-OOM command not allowed\r\n") as client:
        for _ in range(3):
            with pytest.raises(RedisFailed, match="OutOfMemoryError"):
                await client.command("PING")


@pytest.mark.parametrize("answer", [b"", None], ids=["silent", "silent from the start"])
async def test_a_connection_that_answers_nothing_is_left(answer: bytes | None) -> None:
    """As when a failover sends no packet that ends it."""
    # On a busy machine, a later connection may be late, too.
    async with answering(answer, *[b"+PONG\r\n"] * 30, timeout=0.1) as client:
        with pytest.raises(RedisFailed) as raised:
            await client.command("PING")
        assert (raised.value.why, raised.value.timed_out) == ("TimeoutError", True)
        async with asyncio.timeout(30):
            while True:
                with suppress(RedisFailed):
                    assert await client.command("PING") == b"PONG"
                    break


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    """An answer too many would else be taken for that to the next command."""
    async with answering(b"+PONG\r\n+PONG\r\n", b"+PONG\r\n") as client:
        for _ in range(3):
            assert await client.command("PING") == b"PONG"
            await asyncio.sleep(0.01)
