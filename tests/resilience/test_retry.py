from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from calls import tool_call
from garbage import without_garbage_collection
from upstream.fakes import Clock, Scripted, circuit_open, failed, unavailable, unreachable

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.domain.callers import Callers, Waiter
from agenta_ai_server.domain.errors import Reason, Refused, UpstreamFailed
from agenta_ai_server.resilience.retry import RetryBudget, RetryingCompletions

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion_service import Completion, CompletionService

SAFE = {Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_UNAVAILABLE}
UNSAFE = {Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_BROKEN}
UPSTREAM = [why for why in Reason if why.startswith("UPSTREAM_") and why is not Reason.UPSTREAM_CIRCUIT_OPEN]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def retrying(service: Scripted, clock: Clock, *, jitter: float = 1.0, **options: Any) -> RetryingCompletions:
    options.setdefault("budget", RetryBudget(clock=clock))
    return RetryingCompletions(service, clock=clock, sleep=clock.sleep, jitter=lambda: jitter, **options)


async def complete(
    service: CompletionService, deadline: float = math.inf, callers: Callers | None = None
) -> Completion:
    return await service.complete(DeployedPrompt("app"), {}, tool_call(deadline=deadline, callers=callers))


async def failure(service: CompletionService, deadline: float = math.inf) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await complete(service, deadline)
    return caught.value


def traces(told: UpstreamFailed | Completion) -> list[str]:
    return [attempt.trace_id for attempt in told.attempts]


async def test_what_succeeds_is_asked_once(clock: Clock) -> None:
    service = Scripted("text")
    completion = await complete(retrying(service, clock), 1060.0)
    assert (completion.text, completion.earlier, len(completion.attempts)) == ("text", (), 1)
    assert service.deadlines == [1060.0]


async def test_what_bought_nothing_is_asked_again(clock: Clock) -> None:
    service = Scripted(unreachable(), unavailable(), "text")
    completion = await complete(retrying(service, clock))
    assert completion.text == "text"
    assert traces(completion) == ["UPSTREAM_UNREACHABLE", "UPSTREAM_UNAVAILABLE", f"{3:032x}"]
    assert completion.attempt.trace_id == f"{3:032x}"
    assert clock.slept == [0.2, 0.4]


@pytest.mark.parametrize("unsafe", [False, True])
@pytest.mark.parametrize("why", UPSTREAM)
async def test_which_failures_are_asked_again(why: Reason, unsafe: bool, clock: Clock) -> None:
    service = Scripted(failed(why), "text")
    wrapped = retrying(service, clock, unsafe=unsafe)
    if why in SAFE or (unsafe and why in UNSAFE):
        assert (await complete(wrapped)).text == "text"
        assert service.calls == 2
    else:
        assert (await failure(wrapped)).reason is why
        assert service.calls == 1
        assert not clock.slept


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
async def test_no_more_retries_than_allowed(retries: int, clock: Clock) -> None:
    told = await failure(retrying(service := Scripted(*(unavailable() for _ in range(10))), clock, retries=retries))
    assert service.calls == len(told.attempts) == retries + 1
    assert (told.reason, told.retryable) == (Reason.UPSTREAM_UNAVAILABLE, True)


async def test_the_pause_grows_up_to_a_bound(clock: Clock) -> None:
    service = Scripted(*(unreachable() for _ in range(10)))
    await failure(retrying(service, clock, retries=8))
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])


async def test_the_pause_is_a_random_part(clock: Clock) -> None:
    await failure(retrying(Scripted(unreachable(), unreachable()), clock, retries=1, jitter=0.25))
    assert clock.slept == [0.05]


async def test_never_earlier_than_retry_after(clock: Clock) -> None:
    service = Scripted(unavailable(7.0), failed(Reason.UPSTREAM_RATE_LIMITED, delay=3.0), "text")
    assert (await complete(retrying(service, clock, jitter=0.0))).text == "text"
    assert clock.slept == [7.0, 3.0]


@pytest.mark.parametrize(("deadline", "calls"), [(1005.0, 1), (1008.44, 1), (1008.46, 2), (math.inf, 2)])
async def test_no_retry_that_could_not_end_in_time(deadline: float, calls: int, clock: Clock) -> None:
    service = Scripted(unavailable(7.0), "text")
    wrapped = retrying(service, clock, min_remaining_seconds=1.25)  # 7.2 to wait, and 1.25 for the request
    if calls == 2:
        await complete(wrapped, deadline)
    else:
        told = await failure(wrapped, deadline)
        assert (told.retryable, told.retry_delay, clock.slept) == (True, 7.0, [])
    assert service.calls == calls


async def test_no_retry_after_the_longest_time_of_a_call(clock: Clock) -> None:
    service = Scripted(unavailable(3600.0), "text")
    assert (await failure(retrying(service, clock), clock.now + 10_000)).retry_delay == 3600.0
    assert service.calls == 1


async def test_a_retry_has_the_rest_of_the_calls_time(clock: Clock) -> None:
    service = Scripted(unavailable(4.8), "text")
    await complete(retrying(service, clock, max_seconds=60.0))
    assert service.deadlines == [math.inf, 1060.0]
    assert clock.now == 1005.0


async def test_a_refusal_before_anything_was_sent_stays_one(clock: Clock) -> None:
    with pytest.raises(Refused):
        await complete(retrying(service := Scripted(circuit_open(3.0)), clock))
    assert service.calls == 1


@pytest.mark.parametrize(("own", "refusals", "told"), [(None, 3.0, 3.0), (0.5, 3.0, 3.0), (4.0, 3.0, 4.0)])
async def test_a_refusal_after_something_was_sent_is_none(
    own: float | None, refusals: float, told: float, clock: Clock
) -> None:
    error = await failure(retrying(Scripted(unavailable(own), circuit_open(refusals)), clock))
    assert (error.reason, error.retryable, error.retry_delay) == (Reason.UPSTREAM_UNAVAILABLE, True, told)
    assert len(error.attempts) == 1


@pytest.mark.parametrize("later", [unavailable(1.0), failed(Reason.UPSTREAM_REJECTED), circuit_open(1.0)])
async def test_what_may_have_been_bought_is_told_whatever_follows(later: Any, clock: Clock) -> None:
    service = Scripted(failed(Reason.UPSTREAM_BROKEN), later)
    error = await failure(retrying(service, clock, unsafe=True, retries=1))
    assert (error.reason, error.may_have_run, error.retryable, error.retry_delay) == (
        Reason.UPSTREAM_BROKEN,
        True,
        False,
        None,
    )
    assert len(error.attempts) == (1 if isinstance(later, Refused) else 2)


async def test_a_time_out_after_a_retry_is_told(clock: Clock) -> None:
    error = await failure(retrying(Scripted(unreachable(), failed(Reason.UPSTREAM_TIMEOUT)), clock))
    assert (error.reason, error.retryable) == (Reason.UPSTREAM_TIMEOUT, False)
    assert traces(error) == ["UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT"]


async def test_a_cancelled_call_does_not_wait() -> None:
    service = Scripted(unavailable(30.0), "text")
    call = asyncio.create_task(complete(RetryingCompletions(service)))
    while not service.calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)
    assert service.calls == 1


async def test_the_loops_clock_and_real_waits() -> None:
    service = Scripted(unreachable(), "text")
    loop = asyncio.get_running_loop()
    assert (await complete(RetryingCompletions(service, jitter=lambda: 0.0), loop.time() + 10)).text == "text"
    assert (await failure(RetryingCompletions(Scripted(unreachable())), loop.time() + 1)).retryable


async def test_a_failure_leaves_nothing_to_the_collector(clock: Clock) -> None:
    made: list[weakref.ref[UpstreamFailed]] = []

    async def fail() -> Completion:
        error = unreachable()
        made.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    wrapped = retrying(Scripted(fail), clock, retries=1)
    with without_garbage_collection():
        with contextlib.suppress(UpstreamFailed):
            await complete(wrapped)
        assert [error() for error in made] == [None, None]


# The budget.


def test_a_quiet_service_may_retry(clock: Clock) -> None:
    budget = RetryBudget(share=0.2, per_second=1.0, clock=clock)
    assert [budget.take() for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now += 10
    assert budget.take()


def test_retries_are_a_share_of_the_calls(clock: Clock) -> None:
    budget = RetryBudget(share=0.2, per_second=0.0, clock=clock)
    retries = 0
    for _ in range(10_000):
        budget.count_call()
        retries += sum(budget.take() for _ in range(2))
        clock.now += 0.01
    assert 1_900 <= retries <= 2_000


async def test_without_budget_the_failure_is_told_at_once(clock: Clock) -> None:
    budget = RetryBudget(share=0.5, per_second=0.0, clock=clock)
    service = Scripted(*(unavailable(1.0) for _ in range(10)))
    wrapped = retrying(service, clock, budget=budget, retries=1)
    for _ in range(4):
        assert (await failure(wrapped)).retry_delay == 1.0
    assert service.calls == 4 + 2


async def test_refused_calls_earn_no_retries(clock: Clock) -> None:
    budget = RetryBudget(share=1.0, per_second=0.0, clock=clock)
    with pytest.raises(Refused):
        await complete(retrying(Scripted(circuit_open(1.0)), clock, budget=budget))
    assert not budget.take()


async def test_nothing_is_sent_again_when_nobody_waits_for_it_any_more(clock: Clock) -> None:
    service = Scripted(unavailable(delay=2.0), "text")
    run_ends, callers = clock.now + 90, Callers([Waiter(clock.now + 60), Waiter(clock.now + 3.0)])
    callers.leave(callers.waiters[0])
    with pytest.raises(UpstreamFailed) as caught:
        await retrying(service, clock).complete(
            DeployedPrompt("app"), {}, tool_call(deadline=run_ends, callers=callers)
        )
    assert (caught.value.retry_delay, service.calls, clock.slept) == (2.0, 1, [])
    callers.join(Waiter(clock.now + 60))
    service.replies.insert(1, unavailable(delay=2.0))
    completion = await retrying(service, clock).complete(
        DeployedPrompt("app"), {}, tool_call(deadline=run_ends, callers=callers)
    )
    assert (completion.text, service.calls) == ("text", 3)


async def test_progress_says_how_long_a_wait_is(clock: Clock) -> None:
    texts: list[str] = []
    call = tool_call(deadline=math.inf)
    call.watch = lambda progress: texts.append(progress.text)
    service = Scripted(unavailable(), unavailable(delay=2.0), "text")
    await retrying(service, clock).complete(DeployedPrompt("app"), {}, call)
    assert texts == [
        "Agenta can't answer now. Asking again in a moment.",
        "Asking Agenta again.",
        "Agenta can't answer now. Asking again in 2 s.",
        "Asking Agenta again.",
    ]
