"""Redis dies, freezes or forgets in the middle of load, and callers notice as little of it as can be."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
import pytest
from addresses import free_address
from calls import details, refine
from replicas.conftest import PASSWORD
from replicas.replica import PATIENCE, replicas
from telemetry.conftest import scrape

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from redis_server import RedisServer
    from replicas.replica import Replica

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

pytestmark = pytest.mark.needs("redis-server")

# Far more than the half second that a call waits for Redis, and far less than it may take in all.
BOUND = 15
CALLERS = 8
SHARED, FALLBACK = pb.RATE_LIMITER_STATE_SHARED, pb.RATE_LIMITER_STATE_FALLBACK
# More than any load here can use up.
AMPLE = "burst = 100_000\nper_minute = 60_000\n"
FAILING, WORKS_AGAIN = "the rate limiter's store is failing", "the rate limiter's store works again"
REFUSED = "UNAVAILABLE ERROR_REASON_REPLAY_STORE_UNAVAILABLE ['ErrorInfo', 'RequestInfo', 'RetryInfo']"


class Load:
    """Callers almost without a pause, and what they got.

    Attributes:
        calls: How many calls have ended.
        refused: Those that ended with a status.
        slowest: Seconds that the slowest took.
        replica: Whom they call.
    """

    def __init__(self, replica: Replica, stub: ToolServiceAsyncStub) -> None:
        self.replica = replica
        self.calls = 0
        self.refused: list[grpc.aio.AioRpcError] = []
        self.slowest = 0.0
        self._stub = stub
        self._before = len(replica.log)

    @property
    def log(self) -> list[str]:
        """What the replica has written meanwhile of its store."""
        return [line for line in self.replica.log[self._before :] if "store" in line]

    async def run(self, disturb: Callable[[Load], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(self._call()) for _ in range(CALLERS)]
            await self.some()
            await self.becomes(SHARED)
            await disturb(self)
            await self.some()
            for caller in callers:
                caller.cancel()

    async def _call(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._stub.CallTool(refine())
            except grpc.aio.AioRpcError as error:
                self.refused.append(error)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.calls += 1
            await asyncio.sleep(0.02)

    async def some(self) -> None:
        """Wait until some more calls have been made."""
        enough = self.calls + 5 * CALLERS
        await self._until(lambda: self.calls >= enough)

    async def becomes(self, state: pb.RateLimiterState.ValueType) -> None:
        """Wait until Status says so."""
        async with asyncio.timeout(PATIENCE):
            while (await self._stub.Status(pb.StatusRequest())).rate_limiter_state != state:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def repeat(self, request_id: str) -> bool | str:
        """Call with this id, and return whether the result was there already, or the reason of the refusal."""
        asked = refine()
        asked.request_id = request_id
        try:
            return (await self._stub.CallTool(asked)).meta.replayed
        except grpc.aio.AioRpcError as error:
            found = details(error)
            return f"{error.code().name} {found['ErrorInfo']['reason']} {sorted(found)}"

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110  # seen by the load, which runs in this loop
                await asyncio.sleep(0.02)


async def killed(redis: RedisServer, load: Load) -> None:
    await asyncio.to_thread(redis.kill)
    await load.becomes(FALLBACK)
    await load.some()
    await asyncio.to_thread(redis.start)
    await load.becomes(SHARED)


async def frozen(redis: RedisServer, load: Load) -> None:
    redis.freeze()
    await load.becomes(FALLBACK)
    await load.some()
    redis.thaw()
    await load.becomes(SHARED)


async def restarted(redis: RedisServer, load: Load) -> None:
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    await load.some()
    await load.becomes(SHARED)


@asynccontextmanager
async def loaded(standin: StandIn, redis: RedisServer, folder: Path, **settings: str) -> AsyncIterator[Load]:
    """A replica on this Redis, with a limit that isn't reached."""
    policy = folder / "limits.toml"
    policy.write_text(AMPLE)
    common = {
        "AGENTA_AI_GRPC_LIMITS": "on",
        "AGENTA_AI_GRPC_LIMITS_FILE": str(policy),
        "AGENTA_AI_GRPC_REDIS_URL": redis.url,
    }
    async with replicas(standin, **common | settings) as made:
        replica = await made.make()
        async with grpc.aio.insecure_channel(replica.address) as channel:
            stub = ToolServiceStub(channel)
            await stub.CallTool(refine())
            yield Load(replica, stub)
        assert PASSWORD not in "\n".join(replica.log)


def check_log(log: list[str]) -> None:
    """Once for each change. On a busy machine Redis may also fail again, after it has recovered."""
    assert len(log) >= 2, log
    for line, said in zip(log, itertools.cycle([FAILING, WORKS_AGAIN]), strict=False):
        assert said in line, log


@pytest.mark.parametrize("disturb", [killed, frozen, restarted])
async def test_no_call_is_refused_and_none_waits_long(
    disturb: Callable[[RedisServer, Load], Awaitable[None]], standin: StandIn, redis: RedisServer, tmp_path: Path
) -> None:
    async with loaded(standin, redis, tmp_path) as load:
        await load.run(lambda load: disturb(redis, load))
    assert load.refused == []
    assert load.slowest < BOUND
    # A restart may be too quick for anybody to notice.
    if load.log or disturb is not restarted:
        check_log(load.log)


@pytest.mark.parametrize("disturb", [killed, frozen])
async def test_or_calls_are_refused_at_once_with_a_delay(
    disturb: Callable[[RedisServer, Load], Awaitable[None]], standin: StandIn, redis: RedisServer, tmp_path: Path
) -> None:
    async with loaded(standin, redis, tmp_path, AGENTA_AI_GRPC_LIMITS_ON_STORE_FAILURE="refuse") as load:
        await load.run(lambda load: disturb(redis, load))
    answers = [details(error) for error in load.refused]
    assert answers
    assert {error.code() for error in load.refused} == {grpc.StatusCode.UNAVAILABLE}
    assert {answer["ErrorInfo"]["reason"] for answer in answers} == {"ERROR_REASON_RATE_LIMITER_UNAVAILABLE"}
    assert {answer["RetryInfo"]["retryDelay"] for answer in answers} == {"1s"}
    assert len(answers) < load.calls
    assert load.slowest < BOUND
    check_log(load.log)


@pytest.mark.parametrize(
    ("mode", "results"),
    [("refuse", [REFUSED, REFUSED, REFUSED]), ("local", [False, True, True])],
)
async def test_a_request_id_while_nobody_can_be_asked_for_it(
    mode: str, results: list[bool | str], standin: StandIn, redis: RedisServer, tmp_path: Path
) -> None:
    request_id, metrics = str(uuid4()), free_address()

    async def state() -> dict[tuple[str, ...], float]:
        return (await scrape(metrics))["agenta_ai_replay_store_state"]

    settings = {"AGENTA_AI_GRPC_IDEMPOTENCY_ON_STORE_FAILURE": mode, "AGENTA_AI_GRPC_METRICS_LISTEN": metrics}
    async with loaded(standin, redis, tmp_path, **settings) as load:
        assert await state() == {(): 0}
        redis.freeze()
        assert [await load.repeat(request_id) for _ in results] == results
        assert await state() == {(): 2}
        redis.thaw()
        async with asyncio.timeout(PATIENCE):
            while not load.replica.said("the idempotency store works again"):
                await load.repeat(str(uuid4()))
        assert await state() == {(): 0}
        assert len(load.replica.said("the idempotency store is failing")) == 1
        redis.kill()
        assert await load.repeat(str(uuid4())) == results[0]
        assert len(load.replica.said("the idempotency store is failing")) == 2
