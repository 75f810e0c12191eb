"""Several replicas on one Redis: one of them runs an id, and all of their callers get what it brings."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from idempotency.conftest import LEASE, replica, result
from redis_server import RedisServer as RedisOnTcp

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.fallback import LocalFallback
from agenta_ai_server.idempotency.in_flight import InFlightCalls, RunFailed
from agenta_ai_server.idempotency.memory import MemoryStore
from agenta_ai_server.idempotency.pending_writes import PendingWrites, RunOutcome
from agenta_ai_server.idempotency.redis import FOLLOWER_SECONDS, RedisLease
from agenta_ai_server.idempotency.store import Failed, Finished, Following, Leading, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from idempotency.conftest import MakeReplicas, RedisServer

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool import Waiters
    from agenta_ai_server.idempotency.redis import RedisStore

pytestmark = pytest.mark.needs("redis-server")


class Tool:
    """Works until it is told to end."""

    def __init__(self, *, keep: bool = True) -> None:
        self.outcome = result("result", keep=keep)
        self.error: Exception | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.end = asyncio.Event()
        self.runs = 0

    async def __call__(self, _deadline: float, callers: Waiters) -> ToolOutcome:
        callers.begun = True
        self.runs += 1
        self.begun.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return self.outcome


async def until(holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110  # another process says nothing when it changes
            await asyncio.sleep(0.01)


async def is_followed(server: RedisServer) -> bool:
    async with replica(server.url) as (_, store):
        return await store.followed("id") > 0


async def leader_and_followers(
    runs: list[InFlightCalls], tool: Tool, server: RedisServer
) -> tuple[asyncio.Task[ToolOutcome], list[asyncio.Task[ToolOutcome]]]:
    """The first replica leads, and each of the others has two callers that wait for it."""
    leader = asyncio.create_task(runs[0].run("id", b"f", tool))
    await tool.begun.wait()
    followers = [asyncio.create_task(other.run("id", b"f", tool)) for other in runs[1:] for _ in range(2)]
    await until(lambda: is_followed(server))
    return leader, followers


async def test_two_hundred_callers_over_four_replicas_run_it_once(replicas: MakeReplicas) -> None:
    runs, tool = await replicas(4), Tool()
    callers = [asyncio.create_task(runs[number % 4].run("id", b"f", tool)) for number in range(200)]
    await tool.begun.wait()
    tool.end.set()
    results = await asyncio.gather(*callers)
    assert {each.text for each in results} == {"result"}
    assert tool.runs == 1
    assert await runs[3].run("id", b"f", tool) == replace(result("result"), replayed=True)


async def test_many_ids_at_once_over_few_connections(replicas: MakeReplicas) -> None:
    runs, tool = await replicas(2, max_connections=4, timeout=5), Tool()
    tool.end.set()
    await asyncio.gather(*(runs[number % 2].run(str(number // 2), b"f", tool) for number in range(400)))
    assert tool.runs == 200


async def test_followers_wait_for_the_leader(replicas: MakeReplicas, redis_server: RedisServer) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(3), tool, redis_server)
    tool.end.set()
    assert await leader == result("result")
    assert await asyncio.gather(*followers) == [result("result")] * 4
    assert tool.runs == 1


@pytest.mark.parametrize(("keep", "replay_seconds"), [(False, 600), (True, 0)])
async def test_what_isnt_kept_goes_to_those_who_waited_and_to_nobody_else(
    keep: bool, replay_seconds: float, replicas: MakeReplicas, redis_server: RedisServer
) -> None:
    runs, tool = await replicas(3, replay_seconds=replay_seconds), Tool(keep=keep)
    leader, followers = await leader_and_followers(runs, tool, redis_server)
    tool.end.set()
    await leader
    # Comes before the followers have looked.
    assert await runs[0].run("id", b"f", tool) == tool.outcome
    assert tool.runs == 2
    assert await asyncio.gather(*followers) == [tool.outcome] * 4
    assert tool.runs == 2


async def test_results_expire(replicas: MakeReplicas) -> None:
    [runs], tool = await replicas(1, replay_seconds=0.05), Tool()
    tool.end.set()
    await runs.run("id", b"f", tool)
    await asyncio.sleep(0.1)
    assert not (await runs.run("id", b"f", tool)).replayed


async def test_results_of_any_bytes(replicas: MakeReplicas) -> None:
    runs, tool = await replicas(2), Tool()
    tool.outcome = result("+!-\0\r\n\xff" * 200_000)
    tool.end.set()
    assert await runs[0].run("id", b"f", tool) == tool.outcome
    assert await runs[1].run("id", b"f", tool) == replace(tool.outcome, replayed=True)


async def test_an_id_stands_for_one_thing_in_all_replicas(replicas: MakeReplicas) -> None:
    runs, tool = await replicas(2), Tool()
    leader = asyncio.create_task(runs[0].run("id", b"f", tool))
    await tool.begun.wait()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await runs[1].run("id", b"g", tool)
        assert caught.value.reason is Reason.REQUEST_ID_REUSED
        tool.end.set()
        await leader
    assert tool.runs == 1


async def test_a_refusal_lets_the_followers_try_for_themselves(
    replicas: MakeReplicas, redis_server: RedisServer
) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(3), tool, redis_server)
    tool.error = Refused(Reason.RATE_LIMITED, "Too fast.")
    tool.end.set()
    results = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert results == [tool.error] * 5
    # Once in each replica, and not once for each caller.
    assert tool.runs == 3


async def test_a_bug_isnt_repeated_by_the_followers(replicas: MakeReplicas, redis_server: RedisServer) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(3), tool, redis_server)
    tool.error = ZeroDivisionError()
    tool.end.set()
    results = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, *[RunFailed] * 4]
    assert tool.runs == 1


async def test_the_run_goes_on_while_somebody_waits_in_another_replica(
    replicas: MakeReplicas, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agenta_ai_server.idempotency.redis.FOLLOWER_SECONDS", 0.6)
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(2, linger=0.1), tool, redis_server)
    leader.cancel()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await tool.cancelled.wait()
    for follower in followers:
        follower.cancel()
    async with asyncio.timeout(1.5):
        await tool.cancelled.wait()
    assert tool.runs == 1


async def test_a_replica_that_stops_hands_its_runs_to_the_followers(
    replicas: MakeReplicas, redis_server: RedisServer
) -> None:
    runs, tool = await replicas(2), Tool()
    leader, followers = await leader_and_followers(runs, tool, redis_server)
    await runs[0].aclose()
    with pytest.raises(asyncio.CancelledError):
        await leader
    tool.end.set()
    assert [each.text for each in await asyncio.gather(*followers)] == ["result"] * 2
    assert tool.runs == 2


async def test_a_run_that_outlasts_its_lease_keeps_it(replicas: MakeReplicas, redis_server: RedisServer) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(2, lease_seconds=0.3), tool, redis_server)
    await asyncio.sleep(1)
    tool.end.set()
    await asyncio.gather(leader, *followers)
    assert tool.runs == 1


async def test_a_killed_replica_blocks_its_callers_no_longer_than_its_lease(
    replicas: MakeReplicas, redis_server: RedisServer
) -> None:
    script = Path(__file__).with_name("replica_process.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), redis_server.url, str(LEASE), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"begun\n"
    runs, tool = await replicas(3), Tool()
    callers = [asyncio.create_task(runs[number % 3].run("id", b"f", tool)) for number in range(30)]
    await until(lambda: is_followed(redis_server))
    # Longer than the lease: its holder lives, and renews it.
    await asyncio.sleep(1.5 * LEASE)
    assert tool.runs == 0

    process.kill()
    await process.wait()
    killed = time.monotonic()
    await tool.begun.wait()
    assert time.monotonic() - killed < LEASE + 1
    tool.end.set()
    assert {each.text for each in await asyncio.gather(*callers)} == {"result"}
    assert tool.runs == 1


async def test_a_redis_that_restarts_empty_is_told_again(replicas: MakeReplicas, redis_server: RedisServer) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(2), tool, redis_server)
    redis_server.stop()
    results = await asyncio.gather(*followers, return_exceptions=True)
    assert all(isinstance(error, Refused) and error.reason is Reason.REPLAY_STORE_UNAVAILABLE for error in results)
    await redis_server.start()
    async with replica(redis_server.url) as (runs, _):
        await until(lambda: exists(redis_server))
        late = asyncio.create_task(runs.run("id", b"f", tool))
        await until(lambda: is_followed(redis_server))
        tool.end.set()
        assert (await leader, await late) == (result("result"), result("result"))
    assert tool.runs == 1


async def exists(server: RedisServer) -> bool:
    return bool(server.do("EXISTS", "agenta-ai:replay:{id}:"))


async def test_the_result_reaches_its_callers_though_the_store_is_gone(
    replicas: MakeReplicas, redis_server: RedisServer
) -> None:
    [runs], tool = await replicas(1), Tool()
    leader = asyncio.create_task(runs.run("id", b"f", tool))
    await tool.begun.wait()
    redis_server.stop()
    tool.end.set()
    assert await leader == result("result")


async def test_a_result_is_kept_though_redis_stands_still_when_the_run_ends(redis_server: RedisServer) -> None:
    tool = Tool()
    async with replica(redis_server.url, timeout=0.1) as (runs, store), replica(redis_server.url) as (others, _):
        leader = asyncio.create_task(runs.run("id", b"f", tool))
        await tool.begun.wait()
        with redis_server.frozen():
            tool.end.set()
            assert await leader == result("result")
            assert await runs.run("id", b"f", tool) == replace(result("result"), replayed=True)
            with pytest.raises(Refused) as caught:
                await runs.run("id", b"g", tool)
            assert caught.value.reason is Reason.REQUEST_ID_REUSED
        async with asyncio.timeout(10):
            while "id" in store:  # noqa: ASYNC110  # the store says nothing when it has told
                await asyncio.sleep(0.01)
        for each in (runs, others):
            assert (await each.run("id", b"f", tool)).replayed
    assert tool.runs == 1


async def test_what_redis_has_not_heard_it_is_told_at_the_end(redis_server: RedisServer) -> None:
    tool = Tool()
    tool.end.set()
    async with replica(redis_server.url, timeout=0.1, lease_seconds=60) as (_, store):
        claim = await store.claim("id", b"f")
        assert isinstance(claim, Leading)
        with redis_server.frozen():
            await claim.lease.complete(Outcome(b"result", keep=True))
            # So that it won't be heard later.
            await store._client.aclose()
        assert "id" in store
    async with replica(redis_server.url) as (_, store):
        assert await store.claim("id", b"f") == Finished(b"result")


async def claim_unheard(store: RedisStore, server: RedisServer) -> None:
    # On a connection that is there already.
    await store.claim("another", b"f")
    with server.frozen(), pytest.raises(Refused):
        await store.claim("id", b"f")


async def test_a_claim_that_was_heard_too_late_blocks_nobody_here(redis_server: RedisServer) -> None:
    async with replica(redis_server.url, timeout=0.1, lease_seconds=60) as (_, store):
        await claim_unheard(store, redis_server)
        await until(lambda: exists(redis_server))
        assert isinstance(await store.claim("id", b"f"), Leading)
        assert isinstance(await store.claim("id", b"f"), Following)


async def test_a_claim_that_was_heard_too_late_blocks_nobody_elsewhere_for_long(redis_server: RedisServer) -> None:
    tool = Tool()
    tool.end.set()
    one, two = replica(redis_server.url, timeout=0.1, lease_seconds=8), replica(redis_server.url)
    async with one as (_, store), two as (runs, _):
        await claim_unheard(store, redis_server)
        await until(lambda: exists(redis_server))
        async with asyncio.timeout(5):
            assert await runs.run("id", b"f", tool) == result("result")


def test_what_redis_has_not_heard_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agenta_ai_server.idempotency.pending_writes.MAX_BYTES", 100_000)
    untold = PendingWrites()
    for number in range(100):
        lease = RedisLease(cast("RedisStore", None), str(number), b"f", "token")
        untold.add(RunOutcome(lease, b"+" + bytes(3999), 1, math.inf))
    assert [end.lease.key for end in untold.current()] == [str(number) for number in range(80, 100)]
    for end in untold.current():
        end.until = 0
    assert untold.result("99") is None
    assert untold.current() == []
    assert untold._size == 0


async def test_a_run_whose_callers_have_left_ends_though_redis_is_away(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agenta_ai_server.idempotency.redis.FOLLOWER_SECONDS", 0.3)
    async with replica(redis_server.url, linger=0.1) as (runs, _):
        tool = Tool()
        leader = asyncio.create_task(runs.run("id", b"f", tool))
        await tool.begun.wait()
        redis_server.stop()
        leader.cancel()
        async with asyncio.timeout(5):
            await tool.cancelled.wait()


async def test_who_may_wait_elsewhere_has_the_benefit_of_the_doubt_once(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, store):
        claim = await store.claim("id", b"f")
        assert isinstance(claim, Leading)
        redis_server.stop()
        assert [await claim.lease.awaited() for _ in range(3)] == [FOLLOWER_SECONDS, 0, 0]


async def test_the_first_result_stays_when_a_lease_got_lost(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, one), replica(redis_server.url) as (_, two):
        first = await one.claim("id", b"f")
        assert isinstance(first, Leading)
        redis_server.do("FLUSHALL")
        second = await two.claim("id", b"f")
        assert isinstance(second, Leading)
        following = await one.claim("id", b"f")
        assert isinstance(following, Following)
        await first.lease.complete(Outcome(b"first", keep=True))
        await second.lease.complete(Outcome(b"second", keep=True))
        assert await one.claim("id", b"f", following.token) == Finished(b"first")


async def test_a_lost_lease_takes_nothing_from_its_new_holder(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, one), replica(redis_server.url) as (_, two):
        first = await one.claim("id", b"f")
        assert isinstance(first, Leading)
        redis_server.do("FLUSHALL")
        second = await two.claim("id", b"g")
        assert isinstance(second, Leading)
        await one._renew_all(list(one._leases.values()))
        assert not one._leases
        await first.lease.complete(Outcome(b"first", keep=True))
        await first.lease.release()
        assert isinstance(await one.claim("id", b"g"), Following)
        await second.lease.fail()


async def test_a_renewal_that_comes_late_revives_no_lease(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, store):
        claim = await store.claim("id", b"f")
        assert isinstance(claim, Leading)
        leases = list(store._leases.values())
        await claim.lease.release()
        await store._renew_all(leases)
        assert isinstance(await store.claim("id", b"f"), Leading)


async def test_only_those_who_waited_hear_of_a_failure(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, store):
        claim = await store.claim("id", b"f")
        following = await store.claim("id", b"f")
        assert isinstance(claim, Leading)
        assert isinstance(following, Following)
        await claim.lease.fail()
        assert await store.claim("id", b"f", following.token) == Failed()
        assert isinstance(await store.claim("id", b"f"), Leading)
        assert await store.claim("id", b"f", following.token) == Failed()


async def test_without_redis_ids_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    tool = Tool()
    async with replica(f"unix://{tmp_path}/nobody") as (runs, _):
        with pytest.raises(Refused) as caught:
            await runs.run("id", b"f", tool)
        assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
        assert caught.value.retry_delay is not None
        assert str(tmp_path) not in caught.value.message
    assert tool.runs == 0


async def test_connections_from_before_a_restart_of_redis_cost_no_call(tmp_path: Path) -> None:
    server = RedisOnTcp(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        async with replica(server.url) as (_, store):
            await asyncio.gather(*(store.claim(f"before {n}", b"f") for n in range(10)))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            claims = await asyncio.gather(*(store.claim(f"after {n}", b"f") for n in range(10)))
            assert all(isinstance(claim, Leading) for claim in claims)
    finally:
        server.kill()


async def test_a_redis_that_doesnt_answer_is_given_up_in_time(redis_server: RedisServer) -> None:
    async with replica(redis_server.url, timeout=0.1, max_connections=2) as (runs, store):
        await store.probe()
        redis_server.do("CLIENT", "PAUSE", 400)
        began = time.monotonic()
        results = await asyncio.gather(*(runs.run(str(n), b"f", Tool()) for n in range(10)), return_exceptions=True)
        assert time.monotonic() - began < 0.3
        assert all(isinstance(error, Refused) and error.reason is Reason.REPLAY_STORE_UNAVAILABLE for error in results)
        # The answers that came too late are nobody else's.
        tool = Tool()
        tool.end.set()
        await asyncio.sleep(0.5)
        replays = await asyncio.gather(*(runs.run(f"new {n}", b"f", tool) for n in range(10)))
        assert replays == [result("result")] * 10


@pytest.mark.parametrize("trouble", ["is a replica", "is full"])
async def test_a_redis_that_cant_write_counts_as_unavailable(trouble: str, redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (runs, _):
        if trouble == "is full":
            redis_server.do("CONFIG", "SET", "maxmemory", 1)
        else:
            redis_server.do("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(Refused) as caught:
            await runs.run("id", b"f", Tool())
        assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE


async def test_callers_that_are_cancelled_mid_question_mix_up_no_answers(replicas: MakeReplicas) -> None:
    [runs], tool = await replicas(1, max_connections=2, linger=0.001), Tool()
    tool.end.set()
    for number in range(50):
        caller = asyncio.create_task(runs.run(f"left {number}", b"f", tool))
        await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
    await runs.idle()
    tool.outcome = result("other")
    replays = await asyncio.gather(*(runs.run(str(number), b"f", tool) for number in range(50)))
    assert replays == [result("other")] * 50


async def test_by_choice_a_replica_remembers_for_itself_while_redis_is_away(redis_server: RedisServer) -> None:
    async with replica(redis_server.url) as (_, store):
        runs, tool = InFlightCalls(LocalFallback(store, MemoryStore()), max_seconds=30), Tool()
        redis_server.stop()
        callers = [asyncio.create_task(runs.run("id", b"f", tool)) for _ in range(20)]
        await tool.begun.wait()
        tool.end.set()
        assert {replay.text for replay in await asyncio.gather(*callers)} == {"result"}
        assert (await runs.run("id", b"f", tool)).replayed
        assert tool.runs == 1


async def test_nothing_is_left_over(redis_server: RedisServer) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    async with replica(redis_server.url) as (runs, _):
        tool = Tool()
        callers = [asyncio.create_task(runs.run(str(number), b"f", tool)) for number in range(5)]
        await tool.begun.wait()
    await asyncio.wait(callers)
    assert len(asyncio.all_tasks()) == 1
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("rounds", range(0, 24, 3))
async def test_a_question_that_is_cancelled_ends(rounds: int, redis_server: RedisServer) -> None:
    # redis-py loses a cancellation at some steps of its handshake.
    async with replica(redis_server.url) as (_, store):
        questions = [asyncio.create_task(store.claim(str(number), b"f")) for number in range(3)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        waiting = [question for question in questions if question.cancel()]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
