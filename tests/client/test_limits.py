from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from conftest import settings_for
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import SERVICE_CONFIG, CallFailed, Client
from agenta_ai.connection import connection
from agenta_ai.service_config import RETRY_POLICIES
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import Call, FakeServer

    from agenta_ai_server.standin.app import StandIn

    Limited = Callable[[int], tuple[status_pb2.Status, int]]

    from agenta_ai.v1 import tool_service_pb2 as pb

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
WAITING = {"wait_for_limit": True}
# More than any wait of a test, so that an error that came at once is told from one that came after a wait.
LONG = 20.0


@pytest.fixture
def limited(refused: Callable[..., status_pb2.Status]) -> Limited:
    """Makes the refusal of a rate limit that says to call again in so many milliseconds, or not at all."""

    def limited(milliseconds: int) -> tuple[status_pb2.Status, int]:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(12_000 if milliseconds < 0 else milliseconds)
        return refused(RESOURCE_EXHAUSTED, "RATE_LIMITED", "Too many calls.", retry), milliseconds

    return limited


async def test_a_call_waits_as_long_as_it_is_told(
    call: Call,
    server: FakeServer,
    limited: Limited,
    answer: Callable[..., pb.CallToolResponse],
) -> None:
    server.answers(limited(2000), limited(1), answer(content=[{"text": "Done."}]))
    result = await call("call_tool", "tools.x.y.z", {}, client={**WAITING, "token": "t"})
    first, second, third = server.service.times
    # The backoff after a broken connection would be at most 0.12 s, and then 0.24 s.
    assert 1.99 < second - first < 8
    assert third - second < second - first
    assert result.text == "Done."
    assert {request.request_id for request in server.service.requests} == {result.request_id}
    assert [pairs["authorization"] for pairs in server.service.metadata] == ["Bearer t"] * 3


@pytest.mark.parametrize(
    ("client", "milliseconds"), [(WAITING, -1), ({}, 100), ({"wait_for_limit": False}, 100)], ids=repr
)
async def test_a_limit_is_told_at_once(
    call: Call, server: FakeServer, limited: Limited, client: dict[str, Any], milliseconds: int
) -> None:
    server.answers(limited(milliseconds))
    began = time.monotonic()
    with pytest.raises(CallFailed, match=r"^Rate limited\. Try again in \d+ s\.$") as failure:
        await call("call_tool", "tools.x.y.z", {}, client=client, timeout=LONG)
    assert time.monotonic() - began < LONG / 2
    assert len(server.service.requests) == 1
    assert (failure.value.code, failure.value.reason) == (RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert failure.value.retry_delay == (12 if milliseconds < 0 else 0.1)


async def test_a_call_waits_for_as_long_as_it_has_time(call: Call, server: FakeServer, limited: Limited) -> None:
    # More than gRPC's five attempts, and then a wait that would be too long.
    server.answers(*[limited(1)] * 8, limited(900_000))
    with pytest.raises(CallFailed, match=r"^Rate limited\. Try again in 900 s\.$") as failure:
        await call("call_tool", "tools.x.y.z", {}, client=WAITING, timeout=LONG)
    assert len(server.service.requests) == 9
    assert len({request.request_id for request in server.service.requests}) == 1
    assert failure.value.tool_was_run is False


async def test_only_calls_of_tools_wait(call: Call, server: FakeServer, limited: Limited) -> None:
    server.answers(limited(1))
    with pytest.raises(CallFailed):
        await call("status", client=WAITING)
    assert len(server.service.requests) == 1


async def test_an_answer_that_is_too_large_is_not_asked_for_again(
    call: Call, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(answer(content=[{"text": "x" * 2**24}]))
    with pytest.raises(CallFailed) as failure:
        await call("call_tool", "tools.x.y.z", {}, client=WAITING)
    assert (failure.value.code, failure.value.tool_was_run) == (RESOURCE_EXHAUSTED, None)
    assert len(server.service.requests) == 1


async def test_who_waits_for_limits_is_spared_broken_connections_too(
    call: Call, server: FakeServer, limited: Limited, answer: Callable[..., pb.CallToolResponse]
) -> None:
    server.answers(status_pb2.Status(code=14, message="down"), limited(1), answer(content=[{"text": "Done."}]))
    result = await call("call_tool", "tools.x.y.z", {}, client=WAITING)
    assert result.text == "Done."
    assert [request.request_id for request in server.service.requests] == [result.request_id] * 3


async def test_a_wait_beyond_the_deadline_is_not_begun(call: Call, server: FakeServer, limited: Limited) -> None:
    server.answers(limited(900_000))
    began = time.monotonic()
    with pytest.raises(CallFailed, match=r"^Rate limited\. Try again in 900 s\.$"):
        await call("call_tool", "tools.x.y.z", {}, client=WAITING, timeout=LONG)
    assert time.monotonic() - began < LONG / 2
    assert len(server.service.requests) == 1


async def test_fifty_calls_at_once_all_get_their_turn(standin: StandIn, tmp_path: Path) -> None:
    """Against the real server: 10 calls at once as by default, and 20 a second where the default has one in two."""
    (tmp_path / "limits.toml").write_text("burst = 10\nper_minute = 1200\n")
    file = str(tmp_path / "limits.toml")
    settings = settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=file)
    async with serve.running(settings) as address, Client(address, wait_for_limit=True, timeout=30) as client:
        template = {"messages": [{"role": "user", "content": "Please translate {{text}}"}]}
        outcomes = await client.refine_prompts([template] * 50, concurrency=50)
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert standin.started == 50


def test_the_service_config_is_shared() -> None:
    lost = frozenset({"UNAVAILABLE", "CANCELLED"})
    assert {method: policy.codes for method, policy in RETRY_POLICIES.items()} == dict.fromkeys(
        ("Status", "ListTools", "CallTool", "CallToolStream"), lost
    )
    assert (RETRY_POLICIES["CallTool"].retries, RETRY_POLICIES["Status"].retries) == (4, 3)
    options = dict(connection("localhost:1").options)
    # The clients repeat calls themselves, so gRPC must not.
    assert json.loads(str(options["grpc.service_config"])) == {
        "loadBalancingConfig": SERVICE_CONFIG["loadBalancingConfig"],
        "healthCheckConfig": SERVICE_CONFIG["healthCheckConfig"],
    }
