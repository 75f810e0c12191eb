"""One run for each id, whoever waits for it and whoever leaves."""

from __future__ import annotations

import asyncio
import json
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from concurrency.virtual_time import virtual_time
from idempotency.conftest import result

from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.domain.callers import Waiter
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.idempotency import result_budget
from agenta_ai_server.idempotency.encoding import VERSION, encode
from agenta_ai_server.idempotency.in_flight import LARGE_BYTES, MAX_CALLERS, OUTCOME_UNKNOWN, InFlightCalls, RunId
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.store import Claim, Leading, LeaseLost, LedgerStore, lease_lost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import TypeAlias

    from agenta_ai_server.domain.callers import Callers
    from agenta_ai_server.idempotency.store import Lease

    OnBilling: TypeAlias = Callable[[], Awaitable[None]]

MAX_SECONDS = 60
ID = RunId("id", b"f")


class Tool:
    """Something that takes a while and costs money."""

    def __init__(self, text: str = "result", *, seconds: float = 5, keep: bool = True) -> None:
        self.text = text
        self.seconds = seconds
        self.keep = keep
        self.error: Exception | None = None
        self.begun = self.ended = self.cancelled = 0

    async def __call__(self, callers: Callers, on_billing: OnBilling) -> ToolOutcome:
        callers.begun = True
        await on_billing()
        self.begun += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        self.ended += 1
        return result(self.text, keep=self.keep)


def make_store(ttl: float = 600) -> LedgerStore:
    return LedgerStore(MemoryLedger(ttl, clock=lambda: asyncio.get_running_loop().time()), ttl=ttl)


def make_runs(ttl: float = 600) -> InFlightCalls:
    return InFlightCalls(make_store(ttl), linger=2)


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_repeat_joins_the_run_and_a_later_one_gets_the_result() -> None:
    runs, tool = make_runs(), Tool()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await asyncio.sleep(1)
    assert await runs.run(ID, tool, Waiter()) == result("result")
    assert await first == result("result")
    assert await runs.run(ID, tool, Waiter()) == replace(result("result"), replayed=True)
    await asyncio.sleep(595)
    assert (await runs.run(ID, tool, Waiter())).replayed
    await asyncio.sleep(5)
    assert await runs.run(ID, tool, Waiter()) == result("result")
    assert tool.begun == 2
    assert len(runs) == 0


@virtual_time
async def test_an_id_stands_for_one_thing_while_it_runs_and_afterwards() -> None:
    runs, tool = make_runs(), Tool()
    first = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await asyncio.sleep(1)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await runs.run(RunId("id", b"other"), tool, Waiter())
        assert caught.value.reason is Reason.REQUEST_ID_REUSED
        await first
    assert tool.begun == 1


@virtual_time
async def test_another_fingerprint_doesnt_refuse_those_who_join() -> None:
    runs, tool = make_runs(), Tool()
    results = await asyncio.gather(
        runs.run(ID, tool, Waiter()),
        runs.run(RunId("id", b"g"), tool, Waiter()),
        runs.run(ID, tool, Waiter()),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [ToolOutcome, Refused, ToolOutcome]
    assert tool.begun == 1


@virtual_time
async def test_without_storing_repeats_still_join() -> None:
    runs, tool = make_runs(ttl=0), Tool()
    await asyncio.gather(*(runs.run(ID, tool, Waiter()) for _ in range(100)))
    assert tool.begun == 1
    assert not (await runs.run(ID, tool, Waiter())).replayed


@virtual_time
async def test_what_isnt_to_be_kept_runs_again() -> None:
    runs, tool = make_runs(), Tool(keep=False)
    results = await asyncio.gather(runs.run(ID, tool, Waiter()), runs.run(ID, tool, Waiter()))
    assert list(results) == [result("result", keep=False)] * 2
    assert await runs.run(ID, tool, Waiter()) == result("result", keep=False)
    assert tool.begun == 2


@virtual_time
async def test_all_that_joined_get_a_refusal_and_later_ones_run_anew() -> None:
    runs, tool = make_runs(), Tool()
    tool.error = Refused(Reason.RATE_LIMITED, "Too fast.")
    results = await asyncio.gather(*(runs.run(ID, tool, Waiter()) for _ in range(50)), return_exceptions=True)
    assert [each.reason for each in results if isinstance(each, Refused)] == [Reason.RATE_LIMITED] * 50
    tool.error = None
    assert await runs.run(ID, tool, Waiter()) == result("result")
    assert tool.begun == 2


@virtual_time
async def test_all_that_joined_get_a_bug_and_later_ones_that_the_outcome_is_unknown() -> None:
    runs, tool = make_runs(), Tool()
    tool.error = error = ZeroDivisionError()
    results = await asyncio.gather(*(runs.run(ID, tool, Waiter()) for _ in range(50)), return_exceptions=True)
    assert results == [error] * 50
    assert len(traceback.extract_tb(error.__traceback__)) < 12
    tool.error = None
    assert await runs.run(ID, tool, Waiter()) == OUTCOME_UNKNOWN
    assert await runs.run(RunId("id", b"f", rerun=True), tool, Waiter()) == result("result")
    assert (await runs.run(ID, tool, Waiter())).replayed
    assert tool.begun == 2


@virtual_time
async def test_a_bug_before_anything_was_billed_leaves_the_id_free() -> None:
    runs = make_runs()

    async def fail(_callers: Callers, _on_billing: OnBilling) -> ToolOutcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await runs.run(ID, fail, Waiter())
    assert await runs.run(ID, Tool(), Waiter()) == result("result")


@virtual_time
async def test_who_agrees_to_run_it_again_doesnt_join_one_who_didnt() -> None:
    runs, tool = make_runs(), Tool()
    tool.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await runs.run(ID, tool, Waiter())
    tool.error = None
    outcomes = await asyncio.gather(
        *(runs.run(RunId("id", b"f", rerun=rerun), tool, Waiter()) for rerun in (False, True, True))
    )
    assert outcomes == [OUTCOME_UNKNOWN, result("result"), result("result")]
    assert tool.begun == 2


@virtual_time
async def test_a_run_whose_lease_was_lost_claims_the_id_again() -> None:
    runs, tool, attempts = make_runs(), Tool(), 0

    async def lose_at_first(callers: Callers, on_billing: OnBilling) -> ToolOutcome:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise lease_lost()
        return await tool(callers, on_billing)

    assert issubclass(LeaseLost, Refused)
    assert await runs.run(ID, lose_at_first, Waiter()) == result("result")
    assert (attempts, tool.begun) == (2, 1)


def tampered(field: str, value: str) -> bytes:
    """A stored outcome with other JSON in one of its fields."""
    document = json.loads(encode(result("result"))[1:])
    text = json.dumps(document | {field: "?"}).replace('"?"', value)
    return bytes([VERSION]) + text.encode()


@pytest.mark.parametrize(
    "stored",
    [
        b"\xff of a later version",
        b"",
        b"\x01[]",
        tampered("text", "1"),
        tampered("text", r'"\ud800"'),
        tampered("structured", "[" * 10_000 + "]" * 10_000),
        tampered("failure", '{"reason": "NONE_OF_OURS"}'),
        tampered("attempts", '[["trace"]]'),
        tampered("repaired", '"yes"'),
        tampered("warnings", "[1]"),
    ],
)
@virtual_time
async def test_an_outcome_that_cant_be_read_is_unknown(stored: bytes) -> None:
    store, tool = make_store(), Tool()
    claim = await store.claim("id", b"f")
    assert isinstance(claim, Leading)
    await claim.lease.complete(stored, keep=True)
    assert await InFlightCalls(store).run(ID, tool, Waiter()) == OUTCOME_UNKNOWN
    assert tool.begun == 0


@virtual_time
async def test_each_caller_waits_by_its_own_deadline_and_the_run_goes_on() -> None:
    runs, tool = make_runs(), Tool()
    second = asyncio.create_task(runs.run(ID, tool, Waiter()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await runs.run(ID, tool, Waiter())
    assert now() == 1
    assert (await second).text == "result"
    assert (tool.begun, tool.cancelled) == (1, 0)


@virtual_time
async def test_a_run_is_closed_two_seconds_after_its_last_caller_left() -> None:
    runs, tool = make_runs(), Tool(seconds=50)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await runs.run(ID, tool, Waiter())
    await asyncio.sleep(1.9)
    assert tool.cancelled == 0
    await runs.idle()
    assert (tool.cancelled, now()) == (1, 3)
    assert await runs.run(ID, tool, Waiter()) == OUTCOME_UNKNOWN


@virtual_time
async def test_what_has_not_begun_ends_with_its_last_caller() -> None:
    runs, waiting = make_runs(), asyncio.Event()

    async def in_line(callers: Callers, _on_billing: OnBilling) -> ToolOutcome:
        assert callers.deadline == 3
        waiting.set()
        await asyncio.sleep(50)
        raise AssertionError

    callers = [asyncio.create_task(runs.run(ID, in_line, Waiter(deadline))) for deadline in (1, 3, 2)]
    await waiting.wait()
    for caller in callers:
        assert len(runs) == 1
        caller.cancel()
        await asyncio.wait({caller})
    await runs.idle()
    assert now() == 0
    assert await runs.run(ID, Tool(), Waiter()) == result("result")


@virtual_time
async def test_so_many_may_wait_for_one_run_and_for_all() -> None:
    runs, tool = InFlightCalls(make_store(), max_joined=MAX_CALLERS + 1), Tool()
    callers = [asyncio.create_task(runs.run(ID, tool, Waiter())) for _ in range(MAX_CALLERS)]
    others = [asyncio.create_task(runs.run(RunId("other", b"f"), tool, Waiter())) for _ in range(3)]
    await asyncio.sleep(1)
    for key in ("id", "other"):
        with pytest.raises(Refused) as caught:
            await runs.run(RunId(key, b"f"), tool, Waiter())
        assert caught.value.reason is Reason.OVERLOADED
        assert 1 <= (caught.value.retry_delay or 0) <= 2
    # Who begins a run is counted elsewhere.
    third = asyncio.create_task(runs.run(RunId("third", b"f"), tool, Waiter()))
    assert {replay.text for replay in await asyncio.gather(*callers, *others, third)} == {"result"}
    # A stored result costs no waiting.
    assert all([(await runs.run(ID, tool, Waiter())).replayed for _ in range(2 * MAX_CALLERS)])
    assert tool.begun == 3


@virtual_time
async def test_so_many_callers_of_one_owner_may_join_and_those_of_others_still_can() -> None:
    runs, tool = InFlightCalls(make_store(), max_joined_per_principal=2), Tool()
    joined: list[int] = []

    def call(principal: str) -> asyncio.Task[ToolOutcome]:
        on_join = lambda: joined.append(1)  # noqa: E731
        return asyncio.create_task(
            runs.run(RunId(f"id of {principal}", b"f", principal), tool, Waiter(on_join=on_join))
        )

    callers = [call("one") for _ in range(4)] + [call("two") for _ in range(2)]
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [*[ToolOutcome] * 3, Refused, *[ToolOutcome] * 2]
    assert len(joined) == 3
    assert len(runs) == 0


@virtual_time
async def test_large_results_of_one_owner_are_stored_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_budget, "MAX_LARGE_KIB_PER_PRINCIPAL", 250)
    runs, large, small = make_runs(), Tool(text="x" * 100_000), Tool()
    calls = [("a", large, "one"), ("b", large, "one"), ("c", large, "one"), ("d", large, "one")]
    calls += [("e", small, "one"), ("f", large, "two")]
    for key, tool, principal in calls:
        assert (await runs.run(RunId(key, b"f", principal), tool, Waiter())).text == tool.text
    repeats = [await runs.run(RunId(key, b"f", principal), tool, Waiter()) for key, tool, principal in calls]
    assert [repeat.replayed for repeat in repeats] == [True, True, True, False, True, True]
    assert repeats[3] == OUTCOME_UNKNOWN


@virtual_time
async def test_who_comes_while_a_refusal_is_told_to_the_store_is_not_refused_too() -> None:
    class SlowLease:
        def __init__(self, lease: Lease) -> None:
            self._lease = lease

        def __getattr__(self, name: str) -> object:
            return getattr(self._lease, name)

        async def release(self) -> None:
            await asyncio.sleep(1)
            await self._lease.release()

    class SlowStore(LedgerStore):
        async def claim(self, key: str, fingerprint: bytes, *, waited: str = "", rerun: bool = False) -> Claim:
            claim = await super().claim(key, fingerprint, waited=waited, rerun=rerun)
            return Leading(cast("Lease", SlowLease(claim.lease))) if isinstance(claim, Leading) else claim

    async def refuse(_callers: Callers, _on_billing: OnBilling) -> ToolOutcome:
        raise Refused(Reason.DEADLINE_TOO_SHORT, "Too short.")

    runs = InFlightCalls(SlowStore(MemoryLedger()), MAX_SECONDS)
    first = asyncio.create_task(runs.run(ID, refuse, Waiter()))
    await asyncio.sleep(0.5)
    assert await runs.run(ID, Tool(), Waiter()) == result("result")
    with pytest.raises(Refused):
        await first


@virtual_time
async def test_a_repeat_within_the_two_seconds_keeps_the_run() -> None:
    runs, tool = make_runs(), Tool(seconds=10)
    for _ in range(3):
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await runs.run(ID, tool, Waiter())
        await asyncio.sleep(1.5)
    assert await runs.run(ID, tool, Waiter()) == result("result")
    assert (tool.begun, now()) == (1, 10)


@virtual_time
async def test_a_result_that_comes_before_the_two_seconds_end_is_kept() -> None:
    runs, tool = make_runs(), Tool(seconds=2)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await runs.run(ID, tool, Waiter())
    await asyncio.sleep(30)
    assert (await runs.run(ID, tool, Waiter())).replayed


@virtual_time
async def test_a_repeat_of_a_run_that_is_being_closed_waits_for_its_end() -> None:
    runs = make_runs()
    running = 0

    async def slow_to_close(callers: Callers, on_billing: OnBilling) -> ToolOutcome:
        nonlocal running
        callers.begun = True
        await on_billing()
        assert running == 0, "two runs of one id at once"
        running += 1
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        finally:
            running -= 1
        return result("result")

    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await runs.run(ID, slow_to_close, Waiter())
    await asyncio.sleep(2.5)
    assert await runs.run(ID, slow_to_close, Waiter()) == OUTCOME_UNKNOWN
    assert 4 <= now() < 4.5


@virtual_time
async def test_a_caller_cancelled_before_the_run_began_leaves_nothing() -> None:
    runs, tool = make_runs(), Tool()
    caller = asyncio.create_task(runs.run(ID, tool, Waiter()))
    await asyncio.sleep(0)
    caller.cancel()
    await runs.idle()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_closing_cancels_what_runs_and_leaves_no_task() -> None:
    runs, tool = make_runs(), Tool()
    callers = [asyncio.create_task(runs.run(RunId(str(number % 5), b"f"), tool, Waiter())) for number in range(10)]
    left = asyncio.create_task(runs.run(RunId("left", b"f"), tool, Waiter()))
    await asyncio.sleep(1)
    left.cancel()
    await asyncio.sleep(1)
    await runs.aclose()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert tool.cancelled == 6
    assert len(asyncio.all_tasks()) == 1
    assert len(runs) == 0


@virtual_time
async def test_a_result_that_is_too_large_goes_to_those_who_wait_and_no_further() -> None:
    runs, tool = make_runs(), Tool("x" * (5 << 20))
    assert len((await runs.run(ID, tool, Waiter())).text) == 5 << 20
    assert await runs.run(ID, tool, Waiter()) == OUTCOME_UNKNOWN
    assert tool.begun == 1


@virtual_time
async def test_repeats_with_large_results_take_turns() -> None:
    written: list[str] = []
    # Writing takes a second each time.
    runs = InFlightCalls(make_store(), pace=PacedWork(lambda: now() + len(written)))
    ids = [RunId(f"{principal}{number}", b"f", principal) for principal in "ab" for number in range(3)]
    large = "x" * (LARGE_BYTES + 1)
    for each in ids:
        await runs.run(each, Tool(large, seconds=0), Waiter())

    def write(run_id: RunId, outcome: ToolOutcome) -> bytes:
        assert outcome == replace(result(large), replayed=True)
        written.append(run_id.principal)
        return b""

    await asyncio.gather(*(runs.run(each, Tool(), Waiter(write=partial(write, each))) for each in ids))
    assert written == ["a", "a", "b", "a", "b", "b"]


@virtual_time
async def test_repeats_with_ordinary_results_take_no_turn() -> None:
    steps: list[None] = []
    # Each step takes a second.
    pace = PacedWork(lambda: now() + len(steps))
    runs = InFlightCalls(make_store(), pace=pace)

    def endless() -> Generator[None, None, None]:
        while True:
            steps.append(None)
            yield

    ahead = asyncio.create_task(pace.run("", endless()))
    await asyncio.sleep(10)
    async with asyncio.timeout(60):
        await runs.run(ID, Tool("x" * 3_000, seconds=0), Waiter())
        assert (await runs.run(ID, Tool(), Waiter())).replayed
    assert not ahead.done()
    ahead.cancel()
