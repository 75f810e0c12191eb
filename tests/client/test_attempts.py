"""When a call is sent again: decisions alone, by a clock that the tests move."""

from __future__ import annotations

import heapq
from typing import Any

import grpc
import pytest

from agenta_ai import CallFailed
from agenta_ai.attempts import Attempts

Code = grpc.StatusCode


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lost(pushback: str | None = None, code: Code = Code.UNAVAILABLE) -> CallFailed:
    trailers: Any = () if pushback is None else (("grpc-retry-pushback-ms", pushback),)
    return CallFailed("", code=code, trailers=trailers)


def limited(delay: float | None) -> CallFailed:
    return CallFailed("", code=Code.RESOURCE_EXHAUSTED, reason="RATE_LIMITED", retry_delay=delay, tool_was_run=False)


def test_the_backoff_doubles_and_ends() -> None:
    attempts = Attempts("CallTool", 60, now=Clock())
    for expected in (0.1, 0.2, 0.4, 0.8):
        delay = attempts.delay_after(lost())
        assert delay is not None
        assert 0.79 * expected < delay < 1.21 * expected
    assert attempts.delay_after(lost()) is None


def test_the_backoff_has_a_bound() -> None:
    attempts = Attempts("CallTool", 60, retries=10_000, now=Clock())
    delays = [attempts.delay_after(lost()) for _ in range(5000)]
    assert max(delay or 0 for delay in delays) < 2.41


@pytest.mark.parametrize(
    ("pushback", "delay"), [("700", 0.7), ("0", 0), ("-1", None), ("x", None), ("90000", 60)], ids=repr
)
def test_the_server_says_when(pushback: str, delay: float | None) -> None:
    assert Attempts("CallTool", 60, now=Clock()).delay_after(lost(pushback)) == delay


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.UNKNOWN, Code.ABORTED, Code.DEADLINE_EXCEEDED])
def test_what_is_never_sent_again(code: Code) -> None:
    assert Attempts("CallTool", 60, now=Clock()).delay_after(lost("1", code)) is None


def test_what_is_known_of_all_attempts() -> None:
    attempts = Attempts("CallTool", 60, wait_for_limit=True, now=Clock())
    attempts.delay_after(limited(1))
    attempts.delay_after(CallFailed("", code=Code.UNAVAILABLE, tool_was_run=False))
    assert not attempts.is_open
    attempts.delay_after(lost())
    attempts.delay_after(limited(1))
    assert attempts.is_open


@pytest.mark.parametrize(("method", "wait"), [("CallTool", False), ("Status", True), ("ListTools", True)])
def test_only_waiting_calls_of_tools_wait(method: str, wait: bool) -> None:
    assert Attempts(method, 60, wait_for_limit=wait, now=Clock()).delay_after(limited(1)) is None


def test_a_limit_is_waited_for_as_long_as_there_is_time() -> None:
    clock = Clock()
    attempts = Attempts("CallTool", 60, wait_for_limit=True, retries=0, now=clock)
    waits = 0
    while (delay := attempts.delay_after(limited(2))) is not None:
        assert 2 <= delay < 10
        clock.now += delay
        waits += 1
    assert waits > 5
    assert 0 <= attempts.remaining() <= 2


@pytest.mark.parametrize("delay", [None, 0])
def test_a_limit_without_a_delay_is_not_hammered(delay: float | None) -> None:
    wait = Attempts("CallTool", 60, wait_for_limit=True, now=Clock()).delay_after(limited(delay))
    assert wait is not None
    assert wait >= 0.05


class Bucket:
    """The server's default limit: 10 calls at once and 30 a minute."""

    burst, interval = 10, 2.0

    def __init__(self) -> None:
        self.full_at = 0.0

    def take(self, now: float) -> float:
        """Return 0 if a call may be made, else the seconds until the next may."""
        wait = max(self.full_at, now) + self.interval - now - self.burst * self.interval
        if wait > 0:
            return wait
        self.full_at = max(self.full_at, now) + self.interval
        return 0


def test_fifty_calls_at_once_end_soon_after_the_limit_allows_it() -> None:
    clock, bucket = Clock(), Bucket()
    calls = [Attempts("CallTool", 120, wait_for_limit=True, now=clock) for _ in range(50)]
    queue = [(clock.now, number) for number in range(50)]
    refusals = 0
    while queue:
        clock.now, number = heapq.heappop(queue)
        if wait := bucket.take(clock.now):
            refusals += 1
            delay = calls[number].delay_after(limited(wait))
            assert delay is not None
            heapq.heappush(queue, (clock.now + delay, number))
    # 40 calls have to wait, one for each 2 seconds.
    assert 80 <= clock.now - 100 < 100
    # Were all to come back for each place, it would be 780.
    assert refusals < 650
