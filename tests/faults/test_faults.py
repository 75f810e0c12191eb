"""The real server, with something between it and Agenta that breaks each connection in each way."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
import trustme
from calls import details, reason, tool_call
from faults import proxy as faults
from faults.suite import BREAKER, KEEPALIVE, MAX_SECONDS, RETRIES, RETRY_UNSAFE, served

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.agenta.completions import AgentaCompletionService, AgentaConfig
from agenta_ai_server.domain.errors import Reason, UpstreamFailed
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault as StandInFault

if TYPE_CHECKING:
    from pathlib import Path

    from faults.proxy import Fault, Proxy

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai_server.standin.app import StandIn

BROKEN = ("UPSTREAM_BROKEN", False)
TIMEOUT = ("UPSTREAM_TIMEOUT", False)
UNUSABLE = ("UPSTREAM_OUTPUT_INVALID", False)
UNREACHABLE = ("UPSTREAM_UNREACHABLE", True)

# What happens, what the caller is told, and how many requests come through to Agenta.
FAULTS: dict[Fault, tuple[tuple[str, bool], int]] = {
    faults.reset_at_once: (BROKEN, 0),
    faults.close_at_once: (BROKEN, 0),
    faults.reset_within_the_request: (BROKEN, 0),
    faults.stall_within_the_request: (TIMEOUT, 0),
    faults.answer_within_the_request_and_stall: (TIMEOUT, 0),
    faults.never_answer: (TIMEOUT, 0),
    faults.reset_before_the_head: (BROKEN, 1),
    faults.reset_before_the_body: (BROKEN, 1),
    faults.reset_within_the_body: (BROKEN, 1),
    faults.stall_before_the_head: (TIMEOUT, 1),
    faults.stall_before_the_body: (TIMEOUT, 1),
    faults.stall_within_the_body: (TIMEOUT, 1),
    faults.drip: (TIMEOUT, 1),
    faults.drip_the_head: (TIMEOUT, 1),
    faults.huge: (UNUSABLE, 1),
    faults.huge_head: (BROKEN, 1),
    faults.many_headers: (BROKEN, 1),
    faults.length_too_short: (BROKEN, 1),
    faults.length_too_long_and_close: (BROKEN, 1),
    faults.length_too_long_and_stall: (TIMEOUT, 1),
    faults.length_of_nonsense: (BROKEN, 1),
    faults.garbage: (BROKEN, 0),
}
by_name = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
mixed = pytest.mark.parametrize("methods", ["mixed"], indirect=True)
LONG = "x" * 9_000


def told(response: CallToolResponse) -> tuple[str, bool]:
    return reason(response), response.error.retryable


@by_name
async def test_every_fault(fault: Fault, proxy: Proxy, standin: StandIn) -> None:
    proxy.choose = lambda: fault
    # Long enough for a request to come through although the machine stands still for a second.
    limit = {MAX_SECONDS: "2"} if FAULTS[fault][0] == TIMEOUT else {}
    async with served(proxy, standin, **{RETRIES: "2"}, **limit) as caller:
        response = await caller.call(guidelines=LONG, context=LONG)
    assert (told(response), standin.started) == FAULTS[fault], "none of these may be sent again"
    assert len(response.meta.attempts) == 1


@pytest.mark.parametrize("fault", [faults.stall_within_the_request, faults.answer_within_the_request_and_stall])
async def test_a_request_that_nobody_takes(fault: Fault, proxy: Proxy) -> None:
    proxy.choose = lambda: fault
    service = AgentaCompletionService(
        AgentaConfig(api_url=proxy.url, api_key="key", environment="production", max_seconds=2, min_seconds=0.1)
    )
    inputs = {"long": "x" * 20_000_000}  # more than the kernel holds
    try:
        with pytest.raises(UpstreamFailed) as failed:
            async with asyncio.timeout(10):
                await service.complete(DeployedPrompt("app"), inputs, tool_call())
        assert failed.value.reason is Reason.UPSTREAM_TIMEOUT
    finally:
        await service.aclose()


# Where nothing can have been bought.


async def test_refused(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        await proxy.refuse()
        response = await caller.call()
    assert told(response) == UNREACHABLE
    assert len(response.meta.attempts) == 3
    assert standin.started == 0


async def test_refused_for_a_moment(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{RETRIES: "5"}) as caller:
        await proxy.refuse()
        call = asyncio.create_task(caller.call(10))
        await asyncio.sleep(0.1)  # within the first pauses, or before them: either way it must succeed
        await proxy.start()
        response = await call
    assert not response.is_error
    assert standin.started == 1
    assert len(response.meta.attempts) >= 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("http_date", [False, True])
async def test_asked_to_come_back(status: int, http_date: bool, proxy: Proxy, standin: StandIn) -> None:
    late = datetime.now(UTC) + timedelta(seconds=1)
    retry_after = late.strftime("%a, %d %b %Y %H:%M:%S GMT") if http_date else "1"
    standin.respond = in_turn(StandInFault(status=status, retry_after=retry_after))
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        started = time.monotonic()
        response = await caller.call(5)
    assert not response.is_error
    assert standin.started == 2
    assert time.monotonic() - started >= (0 if http_date else 1)


async def test_asked_to_come_back_too_late(proxy: Proxy, standin: StandIn) -> None:
    standin.fault = StandInFault(status=503, retry_after="30")
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        started = time.monotonic()
        response = await caller.call(5)
    assert time.monotonic() - started < 4, "what can't be done in time is told at once"
    assert told(response) == ("UPSTREAM_UNAVAILABLE", True)
    assert response.error.retry_delay.ToSeconds() == 30
    assert standin.started == 1


async def test_paying_twice_is_a_setting(proxy: Proxy, standin: StandIn) -> None:
    ways = iter([faults.reset_before_the_body, faults.reset_before_the_head, faults.pass_on])
    proxy.choose = lambda: next(ways, faults.pass_on)
    async with served(proxy, standin, **{RETRIES: "2", RETRY_UNSAFE: "true"}) as caller:
        response = await caller.call(5)
    assert not response.is_error
    assert standin.started == 3


# TLS.


@pytest.mark.parametrize("fault", ["garbage", "silence", "expired", "another name", "another authority"])
async def test_tls(
    fault: str,
    proxy: Proxy,
    standin: StandIn,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    # An attempt may connect for half of the time that is left: the second one still for more than a second.
    overrides = {"AGENTA_AI_GRPC_UPSTREAM_CA_FILE": str(tmp_path / "ca.pem"), RETRIES: "1", MAX_SECONDS: "5"}
    await proxy.refuse()
    if fault in ("garbage", "silence"):
        proxy.choose = lambda: faults.garbage if fault == "garbage" else faults.never_answer
        await proxy.start()
        overrides["AGENTA_AI_SERVICES_API_URL"] = proxy.url.replace("http:", "https:")
    else:
        await proxy.start(_context(fault, authority))
        overrides["AGENTA_AI_SERVICES_API_URL"] = proxy.url
    async with served(proxy, standin, **overrides) as caller:
        response = await caller.call()
    assert told(response) == UNREACHABLE
    assert len(response.meta.attempts) == 2
    assert standin.started == 0


async def test_tls_that_works(proxy: Proxy, standin: StandIn, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    await proxy.refuse()
    await proxy.start(_context("none", authority))
    async with served(proxy, standin, AGENTA_AI_GRPC_UPSTREAM_CA_FILE=str(tmp_path / "ca.pem")) as caller:
        assert not (await caller.call(5)).is_error


def _context(fault: str, authority: trustme.CA) -> ssl.SSLContext:
    issuer = trustme.CA(key_type=trustme.KeyType.ECDSA) if fault == "another authority" else authority
    expired = datetime.now(UTC) - timedelta(days=1)
    name = "other.example" if fault == "another name" else "127.0.0.1"
    leaf = issuer.issue_cert(
        name,
        not_before=datetime(2020, 1, 1, tzinfo=UTC) if fault == "expired" else None,
        not_after=expired if fault == "expired" else None,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


# Under load.


@by_name
@mixed
async def test_one_in_ten_under_load(fault: Fault, proxy: Proxy, standin: StandIn) -> None:
    chosen = itertools.cycle([fault] + [faults.pass_on] * 9)
    proxy.choose = lambda: next(chosen)
    # A connection of its own for each call: a fault would else also meet idle ones, and no call.
    async with served(proxy, standin, **{RETRIES: "2", KEEPALIVE: "off", MAX_SECONDS: "4"}) as caller:
        responses = await asyncio.gather(*(caller.call() for _ in range(50)))
    (why, retryable), paid = FAULTS[fault]
    failed = [told(response) for response in responses if response.is_error]
    assert 0 < len(failed) < 25
    assert set(failed) == {(why, retryable)}
    assert standin.started == 50 - len(failed) * (1 - paid), "each was paid for once, or not at all"


@mixed
async def test_refused_now_and_then_under_load(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{RETRIES: "5"}) as caller:
        calls = []
        for number in range(100):
            if number % 10 == 0:
                await proxy.refuse()
            calls.append(asyncio.create_task(caller.call(20)))
            await asyncio.sleep(0.005)
            if number % 10 == 0:
                await proxy.start()
        responses = await asyncio.gather(*calls)
    assert not [response for response in responses if response.is_error]
    assert standin.started == 100


@mixed
async def test_everything_at_once(proxy: Proxy, standin: StandIn) -> None:
    chance = random.Random(1)
    proxy.choose = lambda: chance.choice(list(FAULTS)) if chance.random() < 0.5 else faults.pass_on
    async with served(proxy, standin, **{RETRIES: "2", MAX_SECONDS: "5"}) as caller:
        responses = await asyncio.gather(*(caller.call() for _ in range(100)))
    failed = {told(response) for response in responses if response.is_error}
    assert failed == {BROKEN, TIMEOUT, UNUSABLE}
    assert all(len(response.meta.attempts) == 1 for response in responses)
    assert standin.started <= 100


async def test_callers_that_go_away(proxy: Proxy, standin: StandIn) -> None:
    standin.respond = in_turn(*[StandInFault(status=503, retry_after="20")] * 50)
    async with served(proxy, standin, **{RETRIES: "2"}) as caller:
        calls = [asyncio.create_task(caller.call(30)) for _ in range(100)]
        await asyncio.wait_for(standin.when(lambda: standin.started == 100), 10)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert standin.started == 100


# The breaker.


async def test_a_failing_agenta_is_left_alone(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{BREAKER: "on"}) as caller:
        proxy.choose = lambda: faults.reset_before_the_head
        for _ in range(20):
            assert told(await caller.call()) == BROKEN
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.call()
    assert standin.started == 20
    found = details(refused.value)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert found["ErrorInfo"]["reason"] == "ERROR_REASON_UPSTREAM_CIRCUIT_OPEN"
    # It is open for five seconds, of which some may have passed.
    assert float(found["RetryInfo"]["retryDelay"].rstrip("s")) > 1


async def test_one_call_finds_out_that_agenta_is_back(proxy: Proxy, standin: StandIn) -> None:
    standin.respond = in_turn(StandInFault(status=503, retry_after="3"))
    async with served(proxy, standin, **{BREAKER: "on", RETRIES: "1"}) as caller:
        first = asyncio.create_task(caller.call())
        async with asyncio.timeout(5):
            while not await caller.is_degraded():  # noqa: ASYNC110  # only the server knows when it has read the answer
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.call()
        assert not (await first).is_error, "the retry that was asked for is the probe"
        assert not (await caller.call()).is_error
    assert standin.started == 3


async def test_impatient_callers_do_not_speak_for_the_others(proxy: Proxy, standin: StandIn) -> None:
    async with served(proxy, standin, **{BREAKER: "on"}) as caller:
        proxy.choose = lambda: faults.never_answer
        timed_out = 0
        # On a machine that is busy, some are refused because too little time is left, or too little to connect.
        while timed_out < 40:
            slow = await asyncio.gather(*(caller.call(1) for _ in range(10)), return_exceptions=True)
            refused = {each.code() for each in slow if isinstance(each, grpc.aio.AioRpcError)}
            assert refused <= {grpc.StatusCode.DEADLINE_EXCEEDED}, "the breaker is closed"
            ended = [told(each) for each in slow if not isinstance(each, BaseException)]
            assert set(ended) <= {TIMEOUT, UNREACHABLE}
            timed_out += ended.count(TIMEOUT)
        proxy.choose = lambda: faults.pass_on
        assert not (await caller.call(5)).is_error
