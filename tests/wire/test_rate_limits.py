"""Rate limits as callers meet them: what is counted, what is answered, and what Status says."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import REFINE, details, refine, request, trailers
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.standin.app import StandIn

# One call comes back in an hour, so that none does while a test runs.
SLOW = "burst = {burst}\nper_minute = 1\n"


@pytest.fixture
def limited(standin: StandIn, tmp_path: Path) -> Settings:
    return settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(policy(tmp_path, 2)))


def policy(folder: Path, burst: int) -> Path:
    path = folder / "limits.toml"
    path.write_text(SLOW.format(burst=burst))
    return path


async def told_by(call: Any) -> Mapping[str, str]:
    return {key: value for key, value in await call.trailing_metadata() if isinstance(value, str)}


async def refused(stub: ToolServiceAsyncStub, asked: tool_service_pb2.CallToolRequest, **how: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.CallTool(asked, **how)
    return error.value


async def used(stub: ToolServiceAsyncStub) -> int:
    """The calls of this caller that count, as Status tells them, which takes none."""
    status = await stub.Status(tool_service_pb2.StatusRequest())
    limit = status.tools[0].rate_limit
    return limit.burst - limit.remaining


async def test_ten_at_once_and_no_more_by_default(standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_LIMITS="on")) as stub:
        began = time.monotonic()
        calls: list[Any] = [stub.CallTool(refine()) for _ in range(30)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        limit = (await stub.Status(tool_service_pb2.StatusRequest())).tools[0].rate_limit
        came_back = int((time.monotonic() - began) // 2)
    admitted = sum(not isinstance(answer, Exception) for answer in answers)
    assert 10 <= admitted <= 10 + came_back - limit.remaining
    assert (limit.burst, limit.refill_per_minute) == (10, 30)
    delay = limit.next_call_delay.ToTimedelta().total_seconds()
    assert delay == 0 if limit.remaining else 0 < delay <= 2
    assert standin.started == admitted


async def test_every_answer_tells_what_is_left(limited: Settings) -> None:
    async with connected(limited) as stub:
        left = []
        for _ in range(2):
            call = stub.CallTool(refine())
            await call
            left.append(await told_by(call))
    assert [each["ratelimit-policy"] for each in left] == ['"default";q=2;w=120'] * 2
    assert left[0]["ratelimit"] == '"default";r=1;t=60'
    # The time counts from the first one.
    assert re.fullmatch('"default";r=0;t=(60|5[5-9])', left[1]["ratelimit"])


async def test_the_refusal_says_when_to_come_back_in_every_way(limited: Settings) -> None:
    async with connected(limited) as stub:
        for _ in range(2):
            await stub.CallTool(refine())
        error = await refused(stub, refine())
    told = trailers(error)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == (
        "You have reached the rate limit for this tool: 2 at once and 1 a minute. Try again later."
    )
    found = details(error)
    assert found["ErrorInfo"]["reason"] == "ERROR_REASON_RATE_LIMITED"
    delay = float(found["RetryInfo"]["retryDelay"].removesuffix("s"))
    assert 50 < delay <= 60
    assert int(told["retry-after"]) - delay < 1
    assert abs(int(told["grpc-retry-pushback-ms"]) / 1000 - delay) < 0.002
    assert re.fullmatch('"default";r=0;t=(59|60)', told["ratelimit"])
    (violation,) = found["QuotaFailure"]["violations"]
    assert re.fullmatch("bucket:[0-9a-f]{32}", violation.pop("subject"))
    assert violation == {
        "description": "Calls of this tool: 2 at once and 1 a minute.",
        "apiService": "agenta.ai.v1.ToolService",
        "quotaId": "default",
        "quotaValue": "2",
    }


@pytest.mark.parametrize(("seconds", "pushback"), [(5, "-1"), (55, "-1"), (600, r"[1-9]\d{4}")])
async def test_who_could_only_wait_in_vain_is_told_not_to(limited: Settings, seconds: float, pushback: str) -> None:
    async with connected(limited) as stub:
        for _ in range(2):
            await stub.CallTool(refine())
        error = await refused(stub, refine(), timeout=seconds)
    assert re.fullmatch(pushback, trailers(error)["grpc-retry-pushback-ms"])


@pytest.mark.parametrize(
    ("what", "asked", "counts"),
    [
        ("a refinement", refine(), 1),
        ("one that Agenta fails", refine(guidelines="standin: status=500"), 1),
        ("one that is no refinement", refine(guidelines="standin: answer=lossy"), 1),
        ("wrong arguments", request({"prompt_template_json": 7}), 1),
        ("a bad request_id", request({}, request_id="7"), 0),
        ("an unknown tool", request({}, name="tools.a.b.c"), 0),
        ("no tool", request({}, name=""), 0),
        ("an unreadable request", b"\xff", 0),
        ("too large a request", b"\0" * (1 << 20 | 1), 0),
    ],
)
async def test_what_counts(
    what: str, asked: tool_service_pb2.CallToolRequest | bytes, counts: int, limited: Settings
) -> None:
    data = asked if isinstance(asked, bytes) else asked.SerializeToString()
    async with serve.running(limited) as address, grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/agenta.ai.v1.ToolService/CallTool")
        await asyncio.gather(call(data), return_exceptions=True)
        assert await used(ToolServiceStub(channel)) == counts, what


async def test_a_repair_does_not_count(standin: StandIn, tmp_path: Path) -> None:
    more = {"AGENTA_AI_GRPC_LIMITS": "on", "AGENTA_AI_GRPC_LIMITS_FILE": str(policy(tmp_path, 5))}
    async with connected(settings_for(standin, AGENTA_AI_GRPC_REPAIRS="1", **more)) as stub:
        await stub.CallTool(refine(guidelines="standin: answer=lossy"))
        assert await used(stub) == 1
    assert standin.started == 2


async def test_switched_off(standin: StandIn) -> None:
    async with connected(settings_for(standin, AGENTA_AI_GRPC_LIMITS="off")) as stub:
        call = stub.CallTool(refine())
        await call
        status = await stub.Status(tool_service_pb2.StatusRequest())
        assert not {"ratelimit", "ratelimit-policy"} & set(await told_by(call))
    assert status.rate_limiter_state == tool_service_pb2.RATE_LIMITER_STATE_OFF
    assert not status.tools[0].HasField("rate_limit")


async def test_a_caller_without_a_limit(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(f'[tools."{REFINE}"]\nunlimited = true\n')
    more = {"AGENTA_AI_GRPC_LIMITS": "on", "AGENTA_AI_GRPC_LIMITS_FILE": str(path)}
    async with connected(settings_for(standin, **more)) as stub:
        call = stub.CallTool(refine())
        await call
        status = await stub.Status(tool_service_pb2.StatusRequest())
        assert "ratelimit" not in await told_by(call)
    assert status.rate_limiter_state == tool_service_pb2.RATE_LIMITER_STATE_LOCAL
    assert not status.tools[0].HasField("rate_limit")


async def test_the_policy_is_read_again_when_it_changes(limited: Settings, tmp_path: Path) -> None:
    async with connected(limited) as stub:
        policy(tmp_path, 5)
        async with asyncio.timeout(10):
            while (await stub.Status(tool_service_pb2.StatusRequest())).tools[0].rate_limit.burst != 5:
                pass


async def test_a_broken_policy_stops_the_start(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('burst = 10\nper_minut = 30\n[tools."tools.agenta.api.refine"]\nunlimited = true')
    settings = settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(path))
    with pytest.raises(SettingsError) as error:
        async with connected(settings):
            pass
    assert error.value.faults == [f"AGENTA_AI_GRPC_LIMITS_FILE: {path}: per_minut: there is no such key."]
