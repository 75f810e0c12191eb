"""Places and lines: who gets in, in which turn, and who is refused when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from concurrency.virtual_time import VirtualTimeLoop, virtual_time

from agenta_ai_server.concurrency.limiter import MAX_DELAY, MIN_DELAY, ConcurrencyLimiter
from agenta_ai_server.domain.callers import Callers, Waiter
from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence


class Calls:
    """Calls that hold their place for a while, and the order in which they got it."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.entered: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def call(self, organization: str, seconds: float = 1, within: float | None = None) -> None:
        waiting = None if within is None else Callers([Waiter(asyncio.get_running_loop().time() + within)])
        async with self.limiter.slot(organization, waiting):
            self.entered.append(organization)
            await asyncio.sleep(seconds)

    async def start(self, organizations: Sequence[str], seconds: float = 1, within: float | None = None) -> None:
        self.tasks += [asyncio.create_task(self.call(name, seconds, within)) for name in organizations]
        await asyncio.sleep(0)

    async def end(self) -> None:
        await asyncio.gather(*self.tasks)
        assert (self.limiter.in_flight, self.limiter.queued) == (0, 0)


async def refused(limiter: ConcurrencyLimiter, organization: str = "a", within: float | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        await Calls(limiter).call(organization, within=within)
    assert caught.value.reason is Reason.OVERLOADED
    return caught.value


@virtual_time
async def test_one_organization_alone_uses_every_place() -> None:
    calls = Calls(ConcurrencyLimiter(8, 0))
    await calls.start(["a"] * 8)
    assert calls.limiter.in_flight == 8
    await calls.end()


@virtual_time
async def test_calls_in_a_queue_are_told_their_position() -> None:
    limiter = ConcurrencyLimiter(1, 100)
    told: dict[str, list[int]] = {}

    async def call(name: str, organization: str, seconds: float) -> None:
        async with limiter.slot(organization, None, told.setdefault(name, []).append):
            await asyncio.sleep(seconds)

    calls = [asyncio.create_task(call(f"a{number}", "a", 2.5)) for number in range(4)]
    await asyncio.sleep(0.1)
    calls.append(asyncio.create_task(call("b", "b", 0.5)))
    await asyncio.gather(*calls)
    assert told["a0"] == [], "it didn't wait"
    assert told["a1"] == [1]
    # At the latest, since it is of another organization: it gets the next slot.
    assert told["b"] == [2]
    assert told["a2"][0] == 2
    assert told["a3"][0] == 3
    assert all(positions == sorted(positions, reverse=True) for positions in told.values())
    assert told["a3"][-1] == 1


@virtual_time
async def test_the_lines_are_taken_in_turn() -> None:
    calls = Calls(ConcurrencyLimiter(4, 100))
    await calls.start(["x", "y", "z", "u"])
    await calls.start(["a", "a", "a", "b", "b", "c"])
    assert (calls.limiter.in_flight, calls.limiter.queued) == (4, 6)
    await calls.end()
    assert calls.entered[4:] == ["a", "b", "c", "a", "b", "a"]


@virtual_time
async def test_first_come_first_served_within_an_organization() -> None:
    limiter, entered = ConcurrencyLimiter(1, 100), []

    async def call(number: int) -> None:
        async with limiter.slot("a"):
            entered.append(number)
            await asyncio.sleep(1)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert entered == list(range(20))


@virtual_time
async def test_an_organization_that_holds_its_share_leaves_freed_places_to_others() -> None:
    calls = Calls(ConcurrencyLimiter(8, 100, share=0.5))
    await calls.start(["a"] * 4, seconds=1)
    await calls.start(["a"] * 4, seconds=100)
    await calls.start(["a"] * 6)
    await calls.start(["b"] * 3)
    await calls.end()
    # It holds 7 when the first is freed, and its share is 4; when b needs none, it takes what is free.
    assert calls.entered[8:] == ["b", "b", "b", "a", "a", "a", "a", "a", "a"]


@virtual_time
async def test_an_organization_below_its_share_again_has_its_turn() -> None:
    calls = Calls(ConcurrencyLimiter(4, 100))
    await calls.start(["a"], seconds=1)
    await calls.start(["x", "y", "z"], seconds=1.5)
    await calls.start(["b", "a", "b"], seconds=10)
    await asyncio.sleep(1.2)
    # What a held has gone to b, which came first; a holds nothing now, and is next although b waits too.
    await calls.end()
    assert calls.entered[4:] == ["b", "a", "b"]


@virtual_time
async def test_a_place_is_never_left_empty_because_a_share_is_used_up() -> None:
    calls = Calls(ConcurrencyLimiter(4, 100))
    await calls.start(["a"] * 12)
    await calls.end()
    assert asyncio.get_running_loop().time() == 3


@virtual_time
async def test_a_call_that_would_wait_beyond_its_deadline_is_refused_at_once() -> None:
    calls = Calls(ConcurrencyLimiter(2, 100, typical_seconds=10, min_seconds=1))
    await calls.start(["a", "b"], seconds=10)
    # Each turn takes 10 s / 2 places.
    await refused(calls.limiter, within=5.9)
    await calls.start(["a"], seconds=10, within=30)
    await refused(calls.limiter, within=10.9)
    assert asyncio.get_running_loop().time() == 0
    await calls.start(["a"], seconds=10, within=31)
    await calls.end()


@virtual_time
async def test_a_newcomer_expects_its_turn_and_not_the_end_of_a_long_line() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100, typical_seconds=1, min_seconds=0))
    await calls.start(["a"] * 30)
    await refused(calls.limiter, "a", within=20)
    await calls.start(["b"], within=20)
    await calls.end()
    assert calls.entered.index("b") <= 3


@virtual_time
async def test_the_expected_wait_follows_how_long_calls_take() -> None:
    calls = Calls(ConcurrencyLimiter(1, 400, typical_seconds=60, min_seconds=0))
    await calls.start(["a"])
    await refused(calls.limiter, within=5)
    await calls.end()
    await calls.start(["a"] * 150)
    await calls.end()
    await calls.start(["a"])
    await calls.start(["a"], within=5)
    await calls.end()


@virtual_time
async def test_calls_that_have_become_slow_are_noticed_before_one_ends() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100, typical_seconds=1, min_seconds=0))
    await calls.start(["a"], seconds=60)
    await asyncio.sleep(30)
    await refused(calls.limiter, within=20)
    await calls.end()


@virtual_time
async def test_a_long_idle_service_expects_no_long_wait() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100, typical_seconds=1, min_seconds=0))
    await calls.start(["a"])
    await calls.end()
    await asyncio.sleep(3600)
    await calls.start(["a", "a"], within=3)
    await calls.end()


@virtual_time
async def test_a_call_is_refused_while_it_waits_when_too_little_time_is_left() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100, typical_seconds=1, min_seconds=1))
    await calls.start(["a"], seconds=60)
    await refused(calls.limiter, within=5)
    assert asyncio.get_running_loop().time() == 4
    assert calls.limiter.queued == 0
    await calls.end()


@virtual_time
async def test_no_more_calls_wait_than_there_is_room_for_and_newcomers_find_some() -> None:
    calls = Calls(ConcurrencyLimiter(1, 8))
    await calls.start(["a"])
    await calls.start(["a"] * 4)
    await refused(calls.limiter, "a")
    await calls.start(["b"] * 2)
    await refused(calls.limiter, "b")
    await calls.start(["c"])
    await calls.start(["d"])
    await refused(calls.limiter, "e")
    assert calls.limiter.queued == 8
    await calls.end()


@virtual_time
async def test_without_room_to_wait_the_surplus_is_refused() -> None:
    calls = Calls(ConcurrencyLimiter(1, 0))
    await calls.start(["a"])
    await refused(calls.limiter)
    await calls.end()


@virtual_time
async def test_the_delay_is_spread_and_bounded() -> None:
    calls = Calls(ConcurrencyLimiter(1, 0, typical_seconds=1000))
    await calls.start(["a"])
    delays = [(await refused(calls.limiter)).retry_delay or 0 for _ in range(50)]
    assert len(set(delays)) > 40
    assert all(MIN_DELAY <= delay <= 2 * MAX_DELAY for delay in delays)
    await calls.end()


@virtual_time
async def test_a_call_waits_for_those_who_join_it_in_its_line() -> None:
    limiter, callers = ConcurrencyLimiter(1, 100, typical_seconds=0.1), Callers([Waiter(5.0)])

    async def call() -> float:
        async with limiter.slot("a", callers):
            return asyncio.get_running_loop().time()

    holding = Calls(limiter)
    await holding.start(["a"], seconds=10)
    waiting = asyncio.create_task(call())
    await asyncio.sleep(1)
    callers.join(Waiter(15.0))
    assert await waiting == 10
    await holding.end()


@virtual_time
async def test_a_call_is_refused_when_the_last_who_joined_it_would_wait_in_vain() -> None:
    limiter, callers = ConcurrencyLimiter(1, 100, typical_seconds=0.1), Callers([Waiter(5.0)])
    holding = Calls(limiter)
    await holding.start(["a"], seconds=10)

    async def call() -> None:
        async with limiter.slot("a", callers):
            pytest.fail("a place was found")

    waiting = asyncio.create_task(call())
    await asyncio.sleep(1)
    callers.join(Waiter(8.0))
    with pytest.raises(Refused):
        await waiting
    assert 7 <= asyncio.get_running_loop().time() < 7.1
    await holding.end()


@virtual_time
async def test_a_cancelled_call_leaves_its_line_at_once() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100))
    await calls.start(["a"])
    await calls.start(["b", "c"])
    calls.tasks[1].cancel()
    await asyncio.sleep(0)
    assert calls.limiter.queued == 1
    del calls.tasks[1]
    await calls.end()
    assert calls.entered == ["a", "c"]


@virtual_time
async def test_a_call_cancelled_as_it_gets_its_place_gives_it_back() -> None:
    calls = Calls(ConcurrencyLimiter(1, 100))
    await calls.start(["a"], seconds=60)
    await calls.start(["b", "c"])
    calls.tasks[0].cancel()
    await asyncio.sleep(0)
    # b has been given the place, and doesn't know it yet.
    assert (calls.limiter.in_flight, calls.limiter.queued, calls.entered) == (1, 1, ["a"])
    calls.tasks[1].cancel()
    with suppress(asyncio.CancelledError):
        await calls.tasks[1]
    await calls.tasks[2]
    assert calls.entered == ["a", "c"]
    assert calls.limiter.in_flight == 0


@virtual_time
async def test_a_place_is_given_back_when_the_call_fails() -> None:
    limiter = ConcurrencyLimiter(1, 0)
    with pytest.raises(ZeroDivisionError):
        async with limiter.slot("a"):
            raise ZeroDivisionError
    assert limiter.in_flight == 0


def test_nothing_is_made_to_wait_on_while_there_are_places(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with ConcurrencyLimiter(1).slot("a", Callers([Waiter(1.0)])):
            pass

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        monkeypatch.setattr(loop, "create_future", lambda: pytest.fail("a future was made"))
        loop.run_until_complete(main())
