from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from calls import tool_call
from upstream.fakes import Clock, Scripted, failed, unavailable

from agenta_ai_server.agenta.completion_service import Completion, DeployedPrompt, InlinePrompt
from agenta_ai_server.agenta.failures import NOT_DEPLOYED
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused, UpstreamFailed
from agenta_ai_server.domain.values import Attempt
from agenta_ai_server.resilience.circuit_breaker import CircuitBreaker, CircuitBreakingCompletions, State
from agenta_ai_server.resilience.window import CountsByKey, Expected, SlidingCounter

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion_service import CompletionService


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock=clock, jitter=lambda: 0.0)


def count(breaker: CircuitBreaker, healthy: bool | None, times: int = 1, *, caller: str = "", **options: Any) -> None:
    """Count so many ends of calls, or until it opens."""
    for _ in range(times):
        if state_of(breaker) is not State.OPEN:
            breaker.leave(breaker.enter(caller), healthy=healthy, caller=caller, **options)


def state_of(breaker: CircuitBreaker) -> State:
    """Its state, which a type checker would else take for one that stays."""
    return breaker.state


def delay(breaker: CircuitBreaker) -> float:
    with pytest.raises(Refused) as refused:
        breaker.enter()
    error = refused.value
    assert error.reason is Reason.UPSTREAM_CIRCUIT_OPEN
    assert error.retry_delay is not None
    assert "try again in" in error.message
    return error.retry_delay


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    count(breaker, False, 20)
    assert state_of(breaker) is State.OPEN
    return breaker


# When it opens.


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [
        (0, 19, State.CLOSED),
        (0, 20, State.OPEN),
        (10, 10, State.OPEN),
        (11, 10, State.CLOSED),
        (100, 99, State.CLOSED),
        (100, 100, State.OPEN),
    ],
)
def test_half_of_at_least_twenty_calls(good: int, bad: int, state: State, breaker: CircuitBreaker) -> None:
    count(breaker, True, good)
    count(breaker, False, bad)
    assert state_of(breaker) is state


def test_calls_that_tell_nothing_do_not_count(breaker: CircuitBreaker) -> None:
    count(breaker, False, 19)
    count(breaker, None, 100)
    assert state_of(breaker) is State.CLOSED
    count(breaker, False)
    assert state_of(breaker) is State.OPEN


@pytest.mark.parametrize(("later", "state"), [(9.0, State.OPEN), (10.0, State.CLOSED)])
def test_only_the_last_ten_seconds_count(later: float, state: State, breaker: CircuitBreaker, clock: Clock) -> None:
    count(breaker, False, 19)
    clock.now += later
    count(breaker, False)
    assert state_of(breaker) is state


# One caller must not open it for the others.


def test_one_callers_failures_do_not_open_it_while_others_succeed(breaker: CircuitBreaker) -> None:
    for _ in range(100):
        count(breaker, False, 13, caller="attacker")
        count(breaker, True, 4, caller="another")
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize(
    ("others", "state"),
    [
        ([], State.OPEN),
        ([True], State.CLOSED),
        ([False], State.OPEN),
        ([True, False], State.OPEN),
        ([True, True, False], State.CLOSED),
    ],
)
def test_the_others_decide_if_there_are_any(others: list[bool], state: State, breaker: CircuitBreaker) -> None:
    for number, healthy in enumerate(others):
        count(breaker, healthy, caller=f"other {number % 2}")
    count(breaker, False, 20, caller="one")
    assert state_of(breaker) is state


def test_several_that_fail_open_it(breaker: CircuitBreaker) -> None:
    for number in range(5):
        count(breaker, True, 2, caller=f"good {number}")
    for number in range(4):
        count(breaker, False, 8, caller=f"bad {number}")
    assert state_of(breaker) is State.OPEN


def test_others_of_long_ago_do_not_count(breaker: CircuitBreaker, clock: Clock) -> None:
    count(breaker, True, 30, caller="another")
    clock.now += 10
    count(breaker, False, 20, caller="one")
    assert state_of(breaker) is State.OPEN


def test_a_service_that_asks_to_be_left_alone_is_whoever_called(breaker: CircuitBreaker) -> None:
    count(breaker, True, 30, caller="another")
    count(breaker, False, caller="one", retry_after=7.0)
    assert state_of(breaker) is State.OPEN
    assert delay(breaker) == 7.0


def reclosed(breaker: CircuitBreaker, clock: Clock, prober: str, refused: str = "") -> CircuitBreaker:
    """Open it, refuse a call 5 seconds before the probe, and let the probe succeed."""
    count(breaker, False, 20, caller="one")
    if refused:
        with pytest.raises(Refused):
            breaker.enter(refused)
    clock.now += 5
    count(breaker, True, caller=prober)
    assert state_of(breaker) is State.CLOSED
    return breaker


@pytest.mark.parametrize(
    ("prober", "refused", "later", "state"),
    [
        ("another", "", 0.0, State.CLOSED),
        ("another", "", 9.9, State.CLOSED),
        ("another", "", 10.0, State.OPEN),
        ("one", "another", 0.0, State.CLOSED),
        # It was refused for 5 seconds, and then has another 10.
        ("one", "another", 9.9, State.CLOSED),
        ("one", "another", 10.0, State.OPEN),
        ("one", "one", 0.0, State.OPEN),
        ("one", "", 0.0, State.OPEN),
    ],
)
def test_one_caller_does_not_open_it_again_while_others_are_expected(
    prober: str, refused: str, later: float, state: State, breaker: CircuitBreaker, clock: Clock
) -> None:
    reclosed(breaker, clock, prober, refused)
    clock.now += later
    count(breaker, False, 40, caller="one")
    assert state_of(breaker) is state


def test_once_it_has_closed_others_that_succeed_keep_it_closed(breaker: CircuitBreaker, clock: Clock) -> None:
    reclosed(breaker, clock, "another")
    for _ in range(100):
        clock.now += 1
        count(breaker, False, 13, caller="one")
        count(breaker, True, caller="another")
    assert state_of(breaker) is State.CLOSED


def test_once_it_has_closed_the_first_failure_of_another_opens_it_again(breaker: CircuitBreaker, clock: Clock) -> None:
    count(reclosed(breaker, clock, "another"), False, 20, caller="one")
    assert state_of(breaker) is State.CLOSED
    count(breaker, False, caller="another")
    assert state_of(breaker) is State.OPEN


def test_once_it_has_closed_a_service_may_ask_to_be_left_alone(breaker: CircuitBreaker, clock: Clock) -> None:
    count(reclosed(breaker, clock, "another"), False, caller="one", retry_after=7.0)
    assert state_of(breaker) is State.OPEN


def test_others_whose_first_calls_have_not_ended_are_known(breaker: CircuitBreaker) -> None:
    breaker.enter("another")
    count(breaker, False, 40, caller="one")
    assert state_of(breaker) is State.CLOSED


async def test_callers_are_told_apart_by_who_they_are(breaker: CircuitBreaker) -> None:
    good = CircuitBreakingCompletions(Scripted("text"), breaker)
    bad = CircuitBreakingCompletions(Scripted(failed(Reason.UPSTREAM_FAILED)), breaker)
    for _ in range(40):
        await good.complete(DeployedPrompt("app"), {}, tool_call(caller=Principal("a", organization="o")))
        with pytest.raises(UpstreamFailed):
            await bad.complete(DeployedPrompt("app"), {}, tool_call(caller=Principal("b", organization="o")))
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.UPSTREAM_TIMEOUT, State.CLOSED),
        (Reason.UPSTREAM_BROKEN, State.CLOSED),
        (Reason.UPSTREAM_PROVIDER_FAILED, State.CLOSED),
        (Reason.UPSTREAM_UNAVAILABLE, State.OPEN),
        (Reason.UPSTREAM_UNREACHABLE, State.OPEN),
    ],
)
async def test_a_callers_own_prompt_and_model_do_not_open_it(
    reason: Reason, state: State, breaker: CircuitBreaker
) -> None:
    guarded = CircuitBreakingCompletions(Scripted(failed(reason, healthy=False)), breaker)
    for _ in range(20):
        with pytest.raises(UpstreamFailed):
            await guarded.complete(InlinePrompt({}), {}, tool_call())
    assert state_of(breaker) is state


async def test_a_misconfigured_prompt_does_not_open_it(breaker: CircuitBreaker) -> None:
    failure = NOT_DEPLOYED.as_error(Attempt("", 1.0))
    guarded = CircuitBreakingCompletions(Scripted(failure), breaker)
    for _ in range(100):
        with pytest.raises(UpstreamFailed):
            await complete(guarded)
    assert state_of(breaker) is State.CLOSED


def test_counts_by_key_are_those_of_the_last_seconds(clock: Clock) -> None:
    counts, events, rng = CountsByKey[int](10.0, clock), [], random.Random(1)
    for _ in range(3000):
        clock.now += rng.choice([0.0, 0.01, 0.4, 3.0])
        key, bad = rng.randrange(5), rng.random() < 0.5
        counts.add(key, failed=bad)
        events.append((int(clock.now / 0.5), key, bad))
        recent = [event for event in events if event[0] > int(clock.now / 0.5) - 20]
        worst = max(sum(bad for _, key, bad in recent if key == each) for each in range(5))
        assert (counts.worst().failures, counts.total.events) == (worst, len(recent))
        assert counts.total.failures == sum(bad for *_, bad in recent)


def test_two_remembered_callers_tell_what_all_would(clock: Clock) -> None:
    expected, until, rng = Expected[int](clock), dict.fromkeys(range(5), 0.0), random.Random(1)
    for _ in range(3000):
        clock.now += rng.choice([0.0, 0.5, 3.0, 9.0])
        key, seconds = rng.randrange(5), rng.choice([0.0, 1.0, 10.0, 40.0])
        expected.add(key, seconds)
        until[key] = max(until[key], clock.now + seconds)
        for each in range(5):
            others = any(until[other] > clock.now for other in until if other != each)
            assert expected.has_other_than(each) == others


# What it does then.


def test_an_open_breaker_tells_when_to_come_back(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    assert delay(breaker) == 5.0
    clock.now += 3.5
    assert delay(breaker) == 1.5


def test_callers_do_not_come_back_together(clock: Clock) -> None:
    breaker = opened(CircuitBreaker(clock=clock, jitter=random.Random(1).random))
    delays = [delay(breaker) for _ in range(100)]
    assert min(delays) >= 5.0
    assert max(delays) <= 10.0
    assert len(set(delays)) == 100


def test_one_probe_and_no_other(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    assert state_of(breaker) is State.HALF_OPEN
    probe = breaker.enter()
    for _ in range(50):
        assert delay(breaker) == 5.0
    breaker.leave(probe, healthy=True)
    assert state_of(breaker) is State.CLOSED
    count(breaker, False, 19)
    assert state_of(breaker) is State.CLOSED, "what was before is forgotten"


def test_failed_probes_double_the_time_up_to_a_bound(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    times = []
    for _ in range(2000):
        times.append(round(delay(breaker), 6))
        clock.now += times[-1]
        count(breaker, False)
    assert times[:5] == [5.0, 10.0, 20.0, 30.0, 30.0]
    assert set(times[5:]) == {30.0}
    clock.now += 30
    count(breaker, True)
    opened(breaker)
    assert delay(breaker) == 5.0


def test_a_probe_that_tells_nothing_leaves_its_place(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    count(breaker, None, 3)
    assert state_of(breaker) is State.HALF_OPEN
    count(breaker, True)
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize("first", [True, False])
def test_a_slow_probe_does_not_keep_all_others_waiting(first: bool, breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    slow = breaker.enter()
    clock.now += 4
    assert delay(breaker) == pytest.approx(1.0)
    clock.now += 1
    second = breaker.enter()
    delay(breaker)
    # Whichever ends first decides, and the other tells of another time then.
    breaker.leave(slow if first else second, healthy=True)
    assert state_of(breaker) is State.CLOSED
    breaker.leave(second if first else slow, healthy=False)
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize("healthy", [True, False, None])
def test_calls_from_before_do_not_count(healthy: bool | None, breaker: CircuitBreaker, clock: Clock) -> None:
    entries = [breaker.enter() for _ in range(50)]
    opened(breaker)
    for entry in entries[:20]:
        breaker.leave(entry, healthy=healthy, retry_after=20.0)
    assert delay(breaker) == 5.0
    clock.now += 5
    probe = breaker.enter()
    for entry in entries[20:]:
        breaker.leave(entry, healthy=healthy)
    assert state_of(breaker) is State.HALF_OPEN
    breaker.leave(probe, healthy=True)
    assert state_of(breaker) is State.CLOSED


# Retry-After.


@pytest.mark.parametrize(("asked", "seconds"), [(2.0, 2.0), (30.0, 30.0), (3600.0, 30.0)])
def test_the_service_is_taken_at_its_word(asked: float, seconds: float, breaker: CircuitBreaker) -> None:
    count(breaker, False, retry_after=asked)
    assert state_of(breaker) is State.OPEN
    assert delay(breaker) == seconds


@pytest.mark.parametrize("asked", [None, 0.0])
def test_a_service_that_asks_for_nothing(asked: float | None, breaker: CircuitBreaker) -> None:
    count(breaker, False, retry_after=asked)
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize(("asked", "seconds"), [(1.0, 10.0), (15.0, 15.0), (100.0, 30.0)])
def test_a_probe_that_is_asked_to_wait(asked: float, seconds: float, breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    count(breaker, False, retry_after=asked)
    assert delay(breaker) == seconds


def probe(breaker: CircuitBreaker, caller: str, *, healthy: bool, retry_after: float | None = None) -> None:
    breaker.leave(breaker.enter(caller), healthy=healthy, retry_after=retry_after, caller=caller)


def test_a_caller_whose_probes_fail_keeps_it_open_for_nobody_else(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    with pytest.raises(Refused):
        breaker.enter("b")
    clock.now += 5
    probe(breaker, "a", healthy=False)
    with pytest.raises(Refused):
        breaker.enter("a")
    clock.now += 4
    probe(breaker, "b", healthy=False)
    breaker.leave(breaker.enter("left"), healthy=None, caller="left")
    for caller in ("a", "b", "left"):
        with pytest.raises(Refused) as refused:
            breaker.enter(caller)
        assert refused.value.retry_delay == pytest.approx(6.0)  # as after the first
    entry = breaker.enter("c")
    with pytest.raises(Refused):
        breaker.enter("d")
    breaker.leave(entry, healthy=True, caller="c")
    assert state_of(breaker) is State.CLOSED


def test_a_service_that_asks_a_probe_to_wait_is_left_alone_by_all(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    probe(breaker, "a", healthy=False)
    probe(breaker, "b", healthy=False, retry_after=20)
    with pytest.raises(Refused):
        breaker.enter("c")


# What others see.


def test_each_change_is_told_and_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    changes: list[State] = []
    breaker = opened(CircuitBreaker(clock=clock, on_change=changes.append))
    clock.now += 5
    count(breaker, None, 5)
    count(breaker, False)
    clock.now += 10
    count(breaker, True)
    count(breaker, True, 100)
    assert changes == [State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.CLOSED]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING", "INFO", "INFO"]
    assert "5.0 seconds" in caplog.records[0].message


# Around a service.


async def complete(service: CompletionService) -> Completion:
    return await service.complete(DeployedPrompt("app"), {}, tool_call())


async def test_what_passes(breaker: CircuitBreaker) -> None:
    assert (await complete(CircuitBreakingCompletions(Scripted("text"), breaker))).text == "text"


@pytest.mark.parametrize(("healthy", "state"), [(False, State.OPEN), (True, State.CLOSED), (None, State.CLOSED)])
async def test_what_a_failure_tells(healthy: bool | None, state: State, breaker: CircuitBreaker) -> None:
    service = Scripted(failed(Reason.UPSTREAM_TIMEOUT, healthy=healthy))
    guarded = CircuitBreakingCompletions(service, breaker)
    for _ in range(20):
        with pytest.raises(UpstreamFailed):
            await complete(guarded)
    assert state_of(breaker) is state
    if state is State.OPEN:
        with pytest.raises(Refused):
            await complete(guarded)
        assert service.calls == 20


async def test_only_a_503_can_ask_to_wait(breaker: CircuitBreaker) -> None:
    limited = failed(Reason.UPSTREAM_RATE_LIMITED, delay=9.0, healthy=True)
    guarded = CircuitBreakingCompletions(Scripted(limited, unavailable(9.0)), breaker)
    for state in (State.CLOSED, State.OPEN):
        with pytest.raises(UpstreamFailed):
            await complete(guarded)
        assert state_of(breaker) is state
    assert delay(breaker) == 9.0


async def test_fifty_calls_at_half_open(breaker: CircuitBreaker, clock: Clock) -> None:
    answer = asyncio.Event()

    async def late() -> Completion:
        await answer.wait()
        return Completion("text", Attempt("", 0.0))

    guarded = CircuitBreakingCompletions(service := Scripted(late), opened(breaker))
    clock.now += 5
    calls = [asyncio.create_task(complete(guarded)) for _ in range(50)]
    while not service.calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    answer.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert service.calls == 1
    assert sum(isinstance(end, Refused) for end in ends) == 49
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize("end", ["cancelled", "refused", "bug"])
async def test_a_probe_that_ends_otherwise(end: str, breaker: CircuitBreaker, clock: Clock) -> None:
    async def probe() -> Completion:
        if end == "bug":
            raise KeyError
        if end == "refused":
            raise Refused(Reason.DEADLINE_TOO_SHORT, "Too short.")
        await asyncio.Event().wait()
        raise AssertionError

    guarded = CircuitBreakingCompletions(service := Scripted(probe, "text"), opened(breaker))
    clock.now += 5
    task = asyncio.create_task(complete(guarded))
    while not service.calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    if end == "cancelled":
        task.cancel()
    with pytest.raises((asyncio.CancelledError, Refused, KeyError)):
        await task
    assert (await complete(guarded)).text == "text"
    assert state_of(breaker) is State.CLOSED


# The window.


def test_a_window_counts_what_a_list_would(clock: Clock) -> None:
    chance = random.Random(7)
    counter = SlidingCounter(10.0, clock)
    happened: list[float] = []
    for _ in range(3000):
        clock.now += chance.choice([0.0, 0.01, 0.1, 0.5, 3.0, 9.5, 10.0, 40.0])
        if chance.randint(0, 1):
            counter.add()
            happened.append(clock.now)
        step = int(clock.now / 0.5)
        counted = [then for then in happened[-500:] if int(then / 0.5) > step - 20]
        assert counter.count == len(counted)
        assert all(then > clock.now - 10 for then in counted)
