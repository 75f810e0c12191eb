"""The fields of draft-ietf-httpapi-ratelimit-headers-11."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.limits.headers import ratelimit, ratelimit_policy
from agenta_ai_server.limits.limiter import Decision, Limit


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        (Limit(10, 30), '"default";q=10;w=20'),
        (Limit(30, 90), '"default";q=30;w=21'),  # 30 times 666,667 microseconds
        (Limit(1, 90), '"default";q=1;w=1'),
        (Limit(2, 0.01), '"default";q=2;w=12000'),
    ],
)
def test_the_policy_is_the_bucket_and_the_time_that_it_takes_to_refill(limit: Limit, field: str) -> None:
    assert ratelimit_policy("default", limit) == field


@pytest.mark.parametrize(
    ("calls", "passed", "field"),
    [
        (1, 0, '"plan";r=9;t=2'),
        (1, 0.5, '"plan";r=9;t=2'),
        (3, 1.5, '"plan";r=7;t=1'),
        (10, 0, '"plan";r=0;t=2'),
        (10, 1.5, '"plan";r=0;t=1'),
        (0, 0, '"plan";r=10;t=2'),
    ],
)
def test_the_field_says_how_many_are_left_and_when_there_is_one_more(calls: int, passed: float, field: str) -> None:
    limit = Limit(10, 30)
    decision = Decision.of(limit, True, calls * limit.interval - int(passed * 1_000_000))
    assert ratelimit("plan", limit, decision) == field


@given(st.integers(1, 1000), st.floats(0.01, 60_000), st.data())
def test_with_none_left_t_is_the_delay(burst: int, per_minute: float, data: st.DataObject) -> None:
    limit = Limit(burst, per_minute)
    wait = data.draw(st.integers(0, burst * limit.interval))
    decision = Decision.of(limit, True, wait)
    match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', ratelimit("default", limit, decision))
    assert match
    remaining, seconds = map(int, match.groups())
    assert 0 <= remaining <= burst
    assert 1 <= seconds <= -(-limit.interval // 1_000_000)
    if remaining == 0:
        assert 0 <= seconds - decision.delay < 1
