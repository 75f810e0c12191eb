"""Several processes on one file or one Redis: one of them runs an id, and all of their callers get its outcome."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from concurrency.virtual_time import virtual_time
from idempotency.conftest import RedisBacking, result, store_on, until

from agenta_ai_server.domain.callers import Waiter
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.idempotency.fallback import LocalFallback
from agenta_ai_server.idempotency.in_flight import OUTCOME_UNKNOWN, InFlightCalls, RunId
from agenta_ai_server.idempotency.ledger import (
    FOLLOWER_SECONDS,
    Ending,
    EndKind,
    Finished,
    Following,
    LedgerFailed,
    Lost,
    Run,
)
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.pending_writes import PendingEnd, PendingWrites
from agenta_ai_server.idempotency.sealing import Unstored
from agenta_ai_server.idempotency.sqlite import SqliteLedger
from agenta_ai_server.idempotency.store import Claim, Leading, LeaseLost, LedgerStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from idempotency.conftest import Backing, MakeReplicas
    from redis_server import RedisServer

    from agenta_ai_server.domain.callers import Callers
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.idempotency.ledger import ClaimAnswer, Hold

ID = RunId("id", b"f")


class Tool:
    """Works until it is told to end."""

    def __init__(self, *, keep: bool = True) -> None:
        self.outcome = result("result", keep=keep)
        self.error: Exception | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.end = asyncio.Event()
        self.runs = 0

    async def __call__(self, callers: Callers, on_billing: Callable[[], Awaitable[None]]) -> ToolOutcome:
        callers.begun = True
        await on_billing()
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


async def is_followed(backing: Backing) -> bool:
    async with store_on(backing) as store:
        return await store.followed("id") > 0


async def lead(store: LedgerStore, key: str = "id", fingerprint: bytes = b"f") -> Leading:
    claim = await store.claim(key, fingerprint)
    assert isinstance(claim, Leading)
    return claim


async def leader_and_followers(
    runs: list[InFlightCalls], tool: Tool
) -> tuple[asyncio.Task[ToolOutcome], list[asyncio.Task[ToolOutcome]]]:
    """The first process leads, and each of the others has two callers that wait for it."""
    leader = asyncio.create_task(runs[0].run(ID, tool, Waiter()))
    await tool.begun.wait()
    following: set[LedgerStore] = set()
    claim = LedgerStore.claim

    async def observed(store: LedgerStore, *args: Any, **options: Any) -> Claim:
        answer = await claim(store, *args, **options)
        if isinstance(answer, Following):
            following.add(store)
        return answer

    async def all_follow() -> bool:
        return len(following) == len(runs) - 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LedgerStore, "claim", observed)
        followers = [asyncio.create_task(other.run(ID, tool, Waiter())) for other in runs[1:] for _ in range(2)]
        await until(all_follow)
    return leader, followers


async def test_two_hundred_callers_over_four_processes_run_it_once(replicas: MakeReplicas, backing: Backing) -> None:
    runs, tool = await replicas(4), Tool()
    callers = [asyncio.create_task(runs[number % 4].run(ID, tool, Waiter())) for number in range(200)]
    await tool.begun.wait()
    tool.end.set()
    assert [outcome.text for outcome in await asyncio.gather(*callers)] == ["result"] * 200
    assert tool.runs == 1
    assert await runs[3].run(ID, tool, Waiter()) == replace(result(), replayed=True)


async def test_many_ids_at_once(replicas: MakeReplicas, backing: Backing) -> None:
    runs, tool = await replicas(2), Tool()
    tool.end.set()
    await asyncio.gather(
        *(runs[number % 2].run(RunId(str(number // 2), b"f"), tool, Waiter()) for number in range(400))
    )
    assert tool.runs == 200


@pytest.mark.parametrize(("keep", "ttl"), [(False, 600), (True, 0)])
async def test_what_isnt_kept_goes_to_those_who_waited_and_to_nobody_else(
    keep: bool, ttl: float, replicas: MakeReplicas, backing: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a follower may not look for as long as it counts as waiting.
    monkeypatch.setattr("agenta_ai_server.idempotency.rules.FOLLOWER_SECONDS", 30)
    runs, tool = await replicas(3, ttl=ttl), Tool(keep=keep)
    leader, followers = await leader_and_followers(runs, tool)
    tool.end.set()
    await leader
    # Comes before the followers have looked.
    assert await runs[0].run(ID, tool, Waiter()) == result(keep=keep)
    assert tool.runs == 2
    assert await asyncio.gather(*followers) == [result(keep=keep)] * 4
    assert tool.runs == 2


async def test_a_refusal_lets_the_followers_try_for_themselves(replicas: MakeReplicas, backing: Backing) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(3), tool)
    tool.error = Refused(Reason.RATE_LIMITED, "Too fast.")
    tool.end.set()
    results = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert [each.reason for each in results if isinstance(each, Refused)] == [Reason.RATE_LIMITED] * 5
    # Once in each process, and not once for each caller.
    assert tool.runs == 3


async def test_a_bug_isnt_repeated_by_the_followers(replicas: MakeReplicas, backing: Backing) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(3), tool)
    tool.error = ZeroDivisionError()
    tool.end.set()
    results = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert results == [tool.error, *[OUTCOME_UNKNOWN] * 4]
    assert tool.runs == 1


async def test_the_run_goes_on_while_somebody_waits_in_another_process(
    replicas: MakeReplicas, backing: Backing
) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(2, linger=0.1), tool)
    leader.cancel()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(FOLLOWER_SECONDS + 1):
            await tool.cancelled.wait()
    for follower in followers:
        follower.cancel()
    async with asyncio.timeout(FOLLOWER_SECONDS + 5):
        await tool.cancelled.wait()
    assert tool.runs == 1


@virtual_time
async def test_the_run_goes_on_while_a_caller_who_may_rerun_it_waits_in_the_same_process() -> None:
    runs, tool = InFlightCalls(LedgerStore(MemoryLedger()), linger=3), Tool()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await tool.begun.wait()
    rerun = asyncio.create_task(runs.run(ID._replace(rerun=True), tool, Waiter()))
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(60)
    assert not tool.cancelled.is_set()
    tool.end.set()
    assert await rerun == tool.outcome
    assert tool.runs == 1


async def test_a_process_that_stops_has_its_begun_runs_billed_no_second_time(
    replicas: MakeReplicas, backing: Backing
) -> None:
    runs, tool = await replicas(2), Tool()
    leader, followers = await leader_and_followers(runs, tool)
    await runs[0].aclose()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert await asyncio.gather(*followers) == [OUTCOME_UNKNOWN] * 2
    assert tool.runs == 1


async def test_a_run_that_outlasts_its_lease_keeps_it(replicas: MakeReplicas, backing: Backing) -> None:
    tool = Tool()
    leader, followers = await leader_and_followers(await replicas(2, lease=0.6), tool)
    await asyncio.sleep(1.5)
    tool.end.set()
    await asyncio.gather(leader, *followers)
    assert tool.runs == 1


@pytest.mark.parametrize("state", ["claimed", "begun"])
async def test_a_killed_process_blocks_its_callers_no_longer_than_its_lease(
    state: str, replicas: MakeReplicas, backing: Backing
) -> None:
    lease, script = 3.0, Path(__file__).with_name("replica_process.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), backing.url, str(lease), state), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    runs, tool = await replicas(3, lease=lease), Tool()
    tool.end.set()
    callers = [asyncio.create_task(runs[number % 3].run(ID, tool, Waiter())) for number in range(30)]
    await until(lambda: is_followed(backing))
    # Longer than the lease: its holder lives, and renews it.
    await asyncio.sleep(1.5 * lease)
    assert not any(caller.done() for caller in callers)
    process.kill()
    await process.wait()
    killed = time.monotonic()
    outcomes = await asyncio.gather(*callers)
    assert time.monotonic() - killed < lease + 3
    if state == "begun":
        assert outcomes == [OUTCOME_UNKNOWN] * 30
        assert tool.runs == 0
    else:
        assert {outcome.text for outcome in outcomes} == {"result"}
        assert tool.runs == 1


async def test_an_outcome_is_kept_though_the_ledger_fails_when_the_run_ends(backing: Backing) -> None:
    backing.time_out_soon()
    tool = Tool()
    async with store_on(backing) as store, store_on(backing) as other:
        runs, others = InFlightCalls(store), InFlightCalls(other)
        leader = asyncio.create_task(runs.run(ID, tool, Waiter()))
        await tool.begun.wait()
        with backing.unavailable():
            tool.end.set()
            assert await leader == result("result")
            assert await runs.run(ID, tool, Waiter()) == replace(result(), replayed=True)
            states = [store.state]
            with pytest.raises(Refused) as caught:
                await runs.run(RunId("id", b"g"), tool, Waiter())
            assert caught.value.reason is Reason.REQUEST_ID_REUSED

        async def is_recorded() -> bool:
            return not store.has_unrecorded("id")

        await until(is_recorded)
        for each in (runs, others):
            assert (await each.run(ID, tool, Waiter())).replayed
        assert [*states, store.state] == [StoreState.FALLBACK, StoreState.SHARED]
    assert tool.runs == 1


@pytest.mark.parametrize("reading", range(6))
async def test_a_clock_that_jumps_doesnt_run_an_id_again_in_the_same_process(reading: int, tmp_path: Path) -> None:
    tool, readings = Tool(), 0

    def clock() -> float:
        nonlocal readings
        readings += tool.begun.is_set()
        return 5000.0 if readings > reading else 1000.0

    async def repeat(run_id: RunId) -> ToolOutcome | Reason:
        try:
            return await runs.run(run_id, tool, Waiter())
        except Refused as refused:
            return refused.reason

    async def has_jumped_and_been_seen() -> bool:
        return readings > reading + 3

    store = LedgerStore(SqliteLedger(tmp_path / "ids.db", clock=clock))
    runs = InFlightCalls(store)
    await store.start()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await tool.begun.wait()
    reruns = [asyncio.create_task(repeat(ID._replace(rerun=True))) for _ in range(2)]
    await until(has_jumped_and_been_seen)
    reruns.append(asyncio.create_task(repeat(ID._replace(rerun=True))))
    assert await repeat(ID._replace(fingerprint=b"other")) is Reason.REQUEST_ID_REUSED
    tool.end.set()
    assert await asyncio.gather(first, *reruns) == [tool.outcome] * 4
    assert tool.runs == 1
    await runs.aclose()
    await store.aclose()


@pytest.mark.parametrize("end_fails", [False, True])
async def test_a_run_isnt_repeated_while_its_end_is_being_recorded(end_fails: bool, tmp_path: Path) -> None:
    now, tool = 1000.0, Tool()
    is_ending, may_end = asyncio.Event(), asyncio.Event()

    class LateLedger(SqliteLedger):
        async def end(self, run: Run, ending: Ending) -> None:
            is_ending.set()
            await may_end.wait()
            if end_fails:
                raise LedgerFailed("TimeoutError")
            await super().end(run, ending)

    store = LedgerStore(LateLedger(tmp_path / "ids.db", clock=lambda: now))
    runs = InFlightCalls(store)
    await store.start()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await tool.begun.wait()
    tool.end.set()
    await is_ending.wait()
    # The lease has run out, for example because the ledger was away.
    now += 60
    rerun = asyncio.create_task(runs.run(ID._replace(rerun=True), tool, Waiter()))
    with pytest.raises(Refused) as caught:
        await runs.run(ID._replace(fingerprint=b"other", rerun=True), tool, Waiter())
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    may_end.set()
    assert [outcome.text for outcome in await asyncio.gather(first, rerun)] == ["result"] * 2
    assert tool.runs == 1
    await runs.aclose()
    await store.aclose()


async def test_a_run_whose_end_fails_while_its_lease_is_renewed_isnt_repeated(tmp_path: Path) -> None:
    now, tool = 1000.0, Tool()
    is_asked, may_hold = asyncio.Event(), asyncio.Event()

    class LateLedger(SqliteLedger):
        async def hold(self, holds: Sequence[Hold]) -> list[bool]:
            held = await super().hold(holds)
            if tool.begun.is_set():
                is_asked.set()
                await may_hold.wait()
            return held

        async def end(self, run: Run, ending: Ending) -> None:
            raise LedgerFailed("TimeoutError")

    store = LedgerStore(LateLedger(tmp_path / "ids.db", clock=lambda: now))
    runs = InFlightCalls(store)
    await store.start()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await tool.begun.wait()
    rerun = asyncio.create_task(runs.run(ID._replace(rerun=True), tool, Waiter()))
    await is_asked.wait()
    tool.end.set()
    await first
    now += 60
    may_hold.set()
    assert (await rerun).text == "result"
    assert tool.runs == 1
    await runs.aclose()
    await store.aclose()


async def test_what_wasnt_recorded_is_recorded_at_the_end(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, lease=60) as store:
        claim = await lead(store)
        await claim.lease.begin()
        with backing.unavailable():
            await claim.lease.complete(b"result", keep=True)
            assert store.has_unrecorded("id")
    async with store_on(backing) as store:
        assert await store.claim("id", b"f") == Finished(b"result")


async def test_nothing_is_sent_if_it_cant_be_recorded_and_the_id_is_free_again(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, lease=60) as store, store_on(backing) as other:
        claim = await lead(store)
        with backing.unavailable():
            with pytest.raises(Refused) as caught:
                await claim.lease.begin()
            assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
            assert caught.value.message == "The idempotency store is unavailable. Retry with the same request_id."
            assert 1 <= (caught.value.retry_delay or 0) <= 2
            await claim.lease.release()
        # Whether or not the ledger has heard that it was to begin.
        await store.write_pending()
        assert isinstance(await other.claim("id", b"f"), Leading)


async def test_by_choice_a_run_begins_unrecorded(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, lease=60, begin_unrecorded=True) as store, store_on(backing) as other:
        claim = await lead(store)
        with backing.unavailable():
            await claim.lease.begin()
        # The next renewal records it.
        await claim.lease.abandon()
        assert isinstance(await other.claim("id", b"f"), Leading | Lost)


async def test_a_lease_that_was_lost_begins_nothing(backing: Backing) -> None:
    async with store_on(backing, lease=60) as frozen, store_on(backing) as other:
        claim = await lead(frozen)
        await frozen.ledger.end(Run("id", b"f", claim.lease.run.token), Ending(EndKind.RELEASED))  # type: ignore[attr-defined]
        second = await lead(other)
        with pytest.raises(LeaseLost):
            await claim.lease.begin()
        await claim.lease.release()
        await second.lease.begin()
        assert isinstance(await frozen.claim("id", b"f"), Following)


async def test_a_lease_that_was_given_up_begins_nothing_though_the_id_is_free_again(backing: Backing) -> None:
    async with backing.ledger(lease=0.1) as ledger, store_on(backing) as other:
        # It renews nothing meanwhile, as if it were frozen.
        frozen = LedgerStore(ledger, lease=600)
        await frozen.start()
        claim = await lead(frozen)
        await asyncio.sleep(0.2)
        second = await lead(other)
        # It finds that the id is another process's.
        assert isinstance(await frozen.claim("id", b"f"), Following)
        await second.lease.release()
        with pytest.raises(LeaseLost):
            await claim.lease.begin()
        await claim.lease.release()
        assert isinstance(await other.claim("id", b"f"), Leading)
        await frozen.aclose()


async def test_a_claim_that_was_recorded_too_late_blocks_nobody_here(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, lease=60) as store:
        # On a connection that is there already.
        await store.claim("another", b"f")
        with backing.unavailable(), pytest.raises(Refused):
            await store.claim("id", b"f")
        assert isinstance(await store.claim("id", b"f"), Leading)
        assert isinstance(await store.claim("id", b"f"), Following)


async def test_a_claim_that_was_recorded_too_late_blocks_nobody_elsewhere_for_long(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, lease=8) as store, store_on(backing) as other:
        await store.claim("another", b"f")
        with backing.unavailable(), pytest.raises(Refused):
            await store.claim("id", b"f")

        async def is_free() -> bool:
            return isinstance(await other.claim("id", b"f"), Leading)

        async with asyncio.timeout(6):
            await until(is_free)


@pytest.mark.parametrize("rounds", range(0, 24, 3))
async def test_a_claim_that_is_cancelled_ends(rounds: int, backing: Backing) -> None:
    async with store_on(backing) as store:
        claims = [asyncio.create_task(store.claim(str(number), b"f")) for number in range(3)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        waiting = [claim for claim in claims if claim.cancel()]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_callers_that_are_cancelled_mid_question_mix_up_no_answers(
    replicas: MakeReplicas, backing: Backing
) -> None:
    [runs], tool = await replicas(1, linger=0.001), Tool()
    tool.end.set()
    for number in range(50):
        caller = asyncio.create_task(runs.run(RunId(f"left {number}", b"f"), tool, Waiter()))
        await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
    await runs.idle()
    tool.outcome = result("other")
    replays = await asyncio.gather(*(runs.run(RunId(str(number), b"f"), tool, Waiter()) for number in range(50)))
    assert replays == [result("other")] * 50


async def test_a_run_whose_callers_have_left_ends_though_the_ledger_is_away(
    backing: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing.time_out_soon()
    monkeypatch.setattr("agenta_ai_server.idempotency.store.FOLLOWER_SECONDS", 0.3)
    async with store_on(backing) as store:
        runs, tool = InFlightCalls(store, linger=0.1), Tool()
        leader = asyncio.create_task(runs.run(ID, tool, Waiter()))
        await tool.begun.wait()
        with backing.unavailable():
            leader.cancel()
            async with asyncio.timeout(20):
                await tool.cancelled.wait()
        await runs.aclose()


async def test_who_comes_while_the_ledger_is_asked_who_waits_counts_as_waiting() -> None:
    is_asked, may_answer, may_hold = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class LateLedger(MemoryLedger):
        async def hold(self, holds: Sequence[Hold]) -> list[bool]:
            await may_hold.wait()
            return await super().hold(holds)

        async def followed(self, key: str) -> float:
            followed = await super().followed(key)
            is_asked.set()
            await may_answer.wait()
            return followed

    store = LedgerStore(LateLedger())
    claim = await lead(store)
    followed = asyncio.create_task(claim.lease.followed())
    await is_asked.wait()
    repeat = asyncio.create_task(store.claim("id", b"f", rerun=True))
    await asyncio.sleep(0)
    may_answer.set()
    assert await followed > 0
    may_hold.set()
    assert isinstance(await repeat, Following)


async def test_an_answer_of_before_a_run_began_takes_no_lease_from_it() -> None:
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    class LateLedger(SlowToEnd):
        async def hold(self, holds: Sequence[Hold]) -> list[bool]:
            if holds[0].begun:
                return await super().hold(holds)
            is_asked.set()
            await may_answer.wait()
            # Another process had claimed the id then.
            return [False]

    ledger = LateLedger()
    store = LedgerStore(ledger)
    claim = await lead(store)
    renewal = asyncio.create_task(store.claim("id", b"f"))
    await is_asked.wait()
    await claim.lease.begin()
    may_answer.set()
    assert isinstance(await renewal, Following)
    assert isinstance(await store.claim("id", b"f"), Following)
    assert ledger.held == ["id", "id"]


async def test_who_may_wait_elsewhere_has_the_benefit_of_the_doubt_once(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing) as store:
        claim = await lead(store)
        with backing.unavailable():
            assert [await claim.lease.followed() for _ in range(3)] == [FOLLOWER_SECONDS, 0, 0]


async def test_without_stored_outcomes_a_repeat_is_unknown_and_joined_callers_still_get_theirs(
    replicas: MakeReplicas, backing: Backing
) -> None:
    runs, tool = await replicas(2, sealing=Unstored()), Tool()
    leader, followers = await leader_and_followers(runs, tool)
    joined = asyncio.create_task(runs[0].run(ID, tool, Waiter()))
    await asyncio.sleep(0)
    tool.end.set()
    assert [await leader, await joined] == [result(), result()]
    assert await asyncio.gather(*followers) == [OUTCOME_UNKNOWN] * 2
    assert await runs[0].run(ID, tool, Waiter()) == OUTCOME_UNKNOWN
    assert await runs[0].run(RunId("id", b"f", rerun=True), tool, Waiter()) == result()
    assert tool.runs == 2


async def test_by_choice_a_process_remembers_for_itself_while_the_ledger_is_away(backing: Backing) -> None:
    backing.time_out_soon()
    async with store_on(backing, begin_unrecorded=True) as store:
        runs, tool = InFlightCalls(LocalFallback(store, LedgerStore(MemoryLedger()))), Tool()
        before = asyncio.create_task(runs.run(RunId("before", b"f"), Tool(), Waiter()))
        with backing.unavailable():
            callers = [asyncio.create_task(runs.run(ID, tool, Waiter())) for _ in range(20)]
            await tool.begun.wait()
            tool.end.set()
            assert {replay.text for replay in await asyncio.gather(*callers)} == {"result"}
            assert (await runs.run(ID, tool, Waiter())).replayed
        assert tool.runs == 1
        before.cancel()
        await runs.aclose()


async def test_by_choice_a_process_knows_its_own_runs_while_the_ledger_is_away(backing: Backing) -> None:
    """A repeat at the same process was billed again if the ledger had failed after the run."""
    backing.time_out_soon()
    async with store_on(backing, begin_unrecorded=True) as store:
        runs = InFlightCalls(LocalFallback(store, LedgerStore(MemoryLedger())))
        ended, running, refused, lost = Tool(), Tool(), Tool(keep=False), Tool()
        lost.error = RuntimeError()
        for tool in (ended, refused, lost):
            tool.end.set()
        with pytest.raises(RuntimeError):
            await runs.run(RunId("lost", b"f"), lost, Waiter())
        assert await runs.run(RunId("ended", b"f"), ended, Waiter()) == result()
        assert await runs.run(RunId("refused", b"f"), refused, Waiter()) == refused.outcome
        leader = asyncio.create_task(runs.run(RunId("running", b"f"), running, Waiter()))
        await running.begun.wait()
        with backing.unavailable():
            assert (await runs.run(RunId("ended", b"f"), ended, Waiter())).replayed
            with pytest.raises(Refused) as raised:
                await runs.run(RunId("ended", b"other"), ended, Waiter())
            assert raised.value.reason is Reason.REQUEST_ID_REUSED
            assert await runs.run(RunId("lost", b"f"), lost, Waiter()) == OUTCOME_UNKNOWN
            # This one doesn't join the first.
            repeat = asyncio.create_task(runs.run(RunId("running", b"f", rerun=True), running, Waiter()))
            await runs.run(RunId("refused", b"f"), refused, Waiter())
            running.end.set()
            assert [(await call).text for call in (leader, repeat)] == ["result"] * 2
        assert (ended.runs, running.runs, refused.runs, lost.runs) == (1, 1, 2, 1)
        await runs.aclose()


async def test_by_choice_a_process_knows_its_own_runs_when_the_ledger_is_back_and_has_lost_another(
    backing: Backing,
) -> None:
    backing.time_out_soon()
    now = 0.0
    async with store_on(backing, lease=60, begin_unrecorded=True) as store, store_on(backing) as other:
        for key in ("ended", "running", "lost"):
            claim = await lead(other, key)
            await claim.lease.begin()
            await claim.lease.abandon()
        runs = InFlightCalls(LocalFallback(store, LedgerStore(MemoryLedger()), clock=lambda: now))
        ended, running = Tool(), Tool()
        ended.end.set()
        with backing.unavailable():
            assert await runs.run(RunId("ended", b"f"), ended, Waiter()) == result()
            leader = asyncio.create_task(runs.run(RunId("running", b"f", rerun=True), running, Waiter()))
            await running.begun.wait()
        now += 60
        assert await runs.run(RunId("lost", b"f"), Tool(), Waiter()) == OUTCOME_UNKNOWN
        assert (await runs.run(RunId("ended", b"f"), ended, Waiter())).replayed
        repeat = asyncio.create_task(runs.run(RunId("running", b"f"), running, Waiter()))
        await asyncio.sleep(0.1)
        running.end.set()
        assert [(await call).text for call in (leader, repeat)] == ["result"] * 2
        assert (ended.runs, running.runs) == (1, 1)
        # What the memory didn't know is nobody's to run there.
        assert await runs.run(RunId("lost", b"f"), Tool(), Waiter()) == OUTCOME_UNKNOWN
        await runs.aclose()


@pytest.mark.needs("redis-server")
async def test_by_choice_a_process_knows_its_own_runs_when_redis_is_back_and_empty(redis: RedisServer) -> None:
    async with store_on(RedisBacking(redis), begin_unrecorded=True) as store:
        runs, tool = InFlightCalls(LocalFallback(store, LedgerStore(MemoryLedger()))), Tool()
        tool.end.set()
        await runs.run(ID, tool, Waiter())
        redis.do("FLUSHALL")
        assert (await runs.run(ID, tool, Waiter())).replayed
        # The claim of the repeat is released.
        assert redis.do("EXISTS", "agenta-ai:call:{id}:") == 0


async def test_a_full_memory_keeps_no_run_from_the_ledger(backing: Backing) -> None:
    async with store_on(backing, begin_unrecorded=True) as store:
        runs = InFlightCalls(LocalFallback(store, LedgerStore(MemoryLedger(max_ids=1))))
        tool = Tool()
        tool.end.set()
        for key in ("first", "second"):
            assert await runs.run(RunId(key, b"f"), tool, Waiter()) == result()
            assert (await runs.run(RunId(key, b"f"), tool, Waiter())).replayed


async def test_nothing_is_left_over(backing: Backing) -> None:
    async with store_on(backing):
        pass
    gc.collect()
    descriptors = set(os.listdir("/proc/self/fd"))
    async with store_on(backing) as store:
        runs, tool = InFlightCalls(store), Tool()
        callers = [asyncio.create_task(runs.run(RunId(str(number), b"f"), tool, Waiter())) for number in range(5)]
        await tool.begun.wait()
        await runs.aclose()
    await asyncio.wait(callers)
    assert len(asyncio.all_tasks()) == 1
    assert not set(os.listdir("/proc/self/fd")) - descriptors


# What only Redis does


@pytest.mark.needs("redis-server")
async def test_a_redis_that_restarts_empty_is_told_again_of_what_runs(redis: RedisServer) -> None:
    backing, tool = RedisBacking(redis), Tool()
    async with store_on(backing) as store, store_on(backing) as other:
        runs = InFlightCalls(store)
        leader = asyncio.create_task(runs.run(ID, tool, Waiter()))
        await tool.begun.wait()
        await asyncio.to_thread(redis.kill)
        with pytest.raises(Refused):
            await other.claim("id", b"f")
        await asyncio.to_thread(redis.start)

        async def is_known() -> bool:
            return bool(redis.do("HGET", "agenta-ai:call:{id}:", "state") == b"begun")

        await until(is_known)
        assert isinstance(await other.claim("id", b"f"), Following)
        tool.end.set()
        assert await leader == result()
        assert await InFlightCalls(other).run(ID, tool, Waiter()) == replace(result(), replayed=True)
    assert tool.runs == 1


@pytest.mark.needs("redis-server")
async def test_a_redis_that_loses_its_data_lets_what_has_ended_be_billed_twice(redis: RedisServer) -> None:
    """What docs/architecture.md says of it, and no more: what runs meanwhile is told again."""
    backing, tool = RedisBacking(redis), Tool()
    tool.end.set()
    async with store_on(backing) as store:
        runs = InFlightCalls(store)
        assert await runs.run(ID, tool, Waiter()) == result()
        redis.do("FLUSHALL")
        assert await runs.run(ID, tool, Waiter()) == result()
    assert tool.runs == 2


@pytest.mark.needs("redis-server")
async def test_a_redis_that_keeps_its_data_forgets_nothing(tmp_path: Path) -> None:
    from redis_server import RedisServer as Server

    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec")
    await asyncio.to_thread(server.start)
    try:
        async with store_on(RedisBacking(server)) as store:
            finished, lost = await lead(store, "finished"), await lead(store, "lost")
            for claim in (finished, lost):
                await claim.lease.begin()
            await finished.lease.complete(b"result", keep=True)
            await lost.lease.abandon()
            await asyncio.sleep(1.5)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            async def is_back() -> bool:
                with suppress(Refused):
                    return bool(await store.claim("finished", b"f"))
                return False

            await until(is_back)
            assert await store.claim("finished", b"f") == Finished(b"result")
            assert await store.claim("lost", b"f") == Lost()
    finally:
        server.kill()


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("trouble", ["is a replica", "is full"])
async def test_a_redis_that_cant_write_counts_as_unavailable(trouble: str, redis: RedisServer) -> None:
    async with store_on(RedisBacking(redis)) as store:
        if trouble == "is full":
            redis.do("CONFIG", "SET", "maxmemory", 1)
        else:
            redis.do("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(Refused) as caught:
            await store.claim("id", b"f")
        assert caught.value.reason is Reason.REPLAY_STORE_UNAVAILABLE


# What is still to be recorded


def test_what_is_to_be_recorded_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agenta_ai_server.idempotency.pending_writes.MAX_BYTES", 100_000)
    pending = PendingWrites()
    for number in range(100):
        run = Run(str(number), b"f", "token")
        pending.add(PendingEnd(run, Ending(EndKind.KEPT, bytes(4000)), math.inf))
    assert [end.run.key for end in pending.current()] == [str(number) for number in range(80, 100)]
    for end in pending.current():
        end.until = 0
    assert pending.kept("99") is None
    assert pending.current() == []


def test_a_claim_takes_no_ends_place() -> None:
    pending = PendingWrites()
    run = Run("id", b"f", "token")
    kept = PendingEnd(run, Ending(EndKind.KEPT, b"result"), math.inf)
    pending.add(kept)
    pending.add(PendingEnd(run, Ending(EndKind.RELEASED), math.inf, is_claim=True))
    assert pending.kept("id") is kept


class Picky(MemoryLedger):
    """Has no room for one id."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[str] = set()
        self.is_down = True

    async def end(self, run: Run, ending: Ending) -> None:
        if self.is_down or run.key == "large":
            raise LedgerFailed("SQLITE_FULL")
        self.ended.add(run.key)


async def test_one_end_that_cant_be_recorded_holds_up_no_other() -> None:
    ledger = Picky()
    store = LedgerStore(ledger)
    for key in ("large", "one", "two"):
        await (await lead(store, key)).lease.complete(b"result", keep=True)
    ledger.is_down = False
    for _ in range(2):
        await store.write_pending()
    assert ledger.ended == {"one", "two"}
    assert await store.claim("large", b"f") == Finished(b"result")


class SlowToRecover(MemoryLedger):
    """One that fails, and then takes its time to record ends."""

    def __init__(self) -> None:
        super().__init__(600)
        self.is_down = True
        self.may_end = asyncio.Event()

    async def claim(self, run: Run, *, waited: str = "", rerun: bool = False) -> ClaimAnswer:
        if self.is_down:
            raise LedgerFailed("Down")
        return await super().claim(run, waited=waited, rerun=rerun)

    async def end(self, run: Run, ending: Ending) -> None:
        await self.may_end.wait()
        await super().end(run, ending)


async def test_a_claim_that_is_used_while_others_are_released_stays() -> None:
    ledger = SlowToRecover()
    here, elsewhere = LedgerStore(ledger), LedgerStore(ledger)
    for key in ("first", "second"):
        with pytest.raises(Refused):
            await here.claim(key, b"f")
    ledger.is_down = False
    releasing = asyncio.create_task(here.write_pending())
    await asyncio.sleep(0)
    claim = await here.claim("second", b"f")
    assert isinstance(claim, Leading)
    await claim.lease.begin()
    ledger.may_end.set()
    await releasing
    assert isinstance(await elsewhere.claim("first", b"f"), Leading)
    assert isinstance(await elsewhere.claim("second", b"f"), Following)


class SlowToEnd(MemoryLedger):
    """One that fails to record an end, and the next time takes forever, while it renews leases."""

    def __init__(self) -> None:
        super().__init__(600)
        self.held: list[str] = []
        self.is_stalled = False

    @property
    def is_shared(self) -> bool:
        return True

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        self.held += [hold.run.key for hold in holds]
        return await super().hold(holds)

    async def end(self, run: Run, ending: Ending) -> None:
        if self.is_stalled:
            await asyncio.Event().wait()
        raise LedgerFailed("Down")


@virtual_time
async def test_leases_are_renewed_while_ends_are_written() -> None:
    ledger = SlowToEnd()
    store = LedgerStore(ledger, lease=9)
    await store.start()
    await (await lead(store, "ended")).lease.complete(b"result", keep=True)
    await lead(store, "runs")
    ledger.is_stalled = True
    await asyncio.sleep(30)
    assert ledger.held.count("runs") >= 9
    ledger.is_stalled = False
    await store.aclose()


class FailsOnce(SlowToEnd):
    """One that fails in a way that nobody expects, but only the first time."""

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        held = await super().hold(holds)
        if len(self.held) == 1:
            raise ValueError("secret")
        return held


@virtual_time
async def test_leases_are_renewed_after_an_unexpected_error(caplog: pytest.LogCaptureFixture) -> None:
    ledger = FailsOnce()
    store = LedgerStore(ledger, lease=9)
    await store.start()
    await lead(store, "runs")
    await asyncio.sleep(30)
    assert ledger.held.count("runs") >= 9
    assert caplog.messages == ["leases and outcomes couldn't be recorded because of a bug: ValueError"]
    await store.aclose()
