from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
import resource
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calls import tool_call

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.completion_service import DeployedPrompt, InlinePrompt
from agenta_ai_server.agenta.completions import LARGE_BYTES, AgentaCompletionService, AgentaConfig
from agenta_ai_server.agenta.retry_after import retry_delay
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.domain.errors import Reason, Refused, UpstreamFailed

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Hashable

    from upstream.conftest import Exchange, Upstream

    from agenta_ai_server.agenta.completion_service import Completion, CompletionService
    from agenta_ai_server.domain.pace import Pace

    Handler = Callable[[Exchange], Awaitable[None]]
    Make = Callable[..., AgentaCompletionService]

KEY = "goodpref.0123456789"
TRACE = "a66e7c55acfd75632968e0b8df25282c"
INPUTS = {"prompt": "Grüße 👋", "context": ""}
CAPTURES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/completion_captures.json").read_text())


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    services: list[AgentaCompletionService] = []

    def make(url: str, pace: Pace | None = None, **settings: Any) -> AgentaCompletionService:
        config = AgentaConfig(
            **{"api_url": url, "api_key": KEY, "environment": "production", "route": "run"} | settings
        )
        services.append(AgentaCompletionService(config, pace=pace))
        return services[-1]

    yield make
    for service in services:
        await service.aclose()


async def complete(service: CompletionService, deadline: float = math.inf) -> Completion:
    return await service.complete(DeployedPrompt("ai-refine"), INPUTS, tool_call(deadline=deadline))


async def failure(service: CompletionService) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await complete(service)
    error = caught.value
    assert len(error.attempts) == 1
    assert error.attempts[0].seconds >= 0
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error)
    assert "http" not in error.message
    assert error.message.endswith((".", "try again."))
    assert not (error.may_have_run and error.retryable)
    return error


def answering(body: bytes | object, **kwargs: Any) -> Handler:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(data, **kwargs)

    return handler


def text(data: object = "refined", **more: object) -> dict[str, object]:
    return {"version": "3.0", "data": data, "trace_id": TRACE, **more}


async def stall(exchange: Exchange) -> None:
    await exchange.reader.read()


async def stall_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b"{", length=10)
    await stall(exchange)


async def drip(exchange: Exchange) -> None:
    await exchange.answer(b"{", length=10_000)
    while not exchange.writer.is_closing():
        await exchange.send(b" ")
        await asyncio.sleep(0.02)


async def close_before_answering(exchange: Exchange) -> None:
    exchange.writer.close()


async def reset_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b'{"data"', length=100)
    await asyncio.sleep(0.02)
    exchange.reset()


async def close_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b'{"data"', length=100)
    exchange.writer.close()


async def send_garbage(exchange: Exchange) -> None:
    await exchange.send(b"garbage\r\n\r\n")


# The request and its answer.


async def test_a_completion(upstream: Upstream, make: Make) -> None:
    service: CompletionService = make(await upstream.start(answering(text("refined ✓"))) + "/api/")
    completion = await complete(service)
    assert completion.text == "refined ✓"
    assert completion.attempt.trace_id == TRACE
    assert 0 < completion.attempt.seconds < 5
    request = upstream.exchanges[0]
    assert request.head.startswith("POST /services/completion/run HTTP/1.1\r\n")
    assert f"\r\nauthorization: ApiKey {KEY}\r\n".lower() in request.head.lower()
    assert "\r\naccept-encoding: identity\r\n" in request.head.lower()
    assert "\r\ncontent-type: application/json\r\n" in request.head.lower()
    assert json.loads(request.body) == {"inputs": INPUTS, "environment": "production", "app": "ai-refine"}


async def test_any_string_can_be_sent(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text())))
    await service.complete(DeployedPrompt("app"), {"a": "\ud800 \x00 \u2028"}, tool_call())
    assert json.loads(upstream.exchanges[0].body)["inputs"] == {"a": "\ud800 \x00 \u2028"}


async def test_an_empty_text_is_passed_on(upstream: Upstream, make: Make) -> None:
    assert (await complete(make(await upstream.start(answering(text("")))))).text == ""


@pytest.mark.parametrize("capture", CAPTURES, ids=[capture["case"] for capture in CAPTURES])
async def test_recorded_answers(capture: dict[str, Any], upstream: Upstream, make: Make) -> None:
    recorded = capture["response"]
    body = recorded["body"]
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    service = make(await upstream.start(answering(raw, status=recorded["status"])))
    trace_id = body.get("trace_id", "") if isinstance(body, dict) else ""
    if recorded["status"] == 200 and isinstance(body.get("data"), str):
        completion = await complete(service)
        assert completion.text == body["data"]
        assert completion.attempt.trace_id == trace_id
        return
    error = await failure(service)
    assert error.attempts[0].trace_id == trace_id


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain text",
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": 1}',
        b'{"data": ["a"]}',
        b'{"data": {"outputs": "text"}}',
        b'{"data": "a',
        b'{"data": "\xff\xfe\xfd"}',
        b'{"data": "half of a pair \\ud83d"}',
        b'{"data": "half of a pair \xed\xa0\xbd"}',
        b"[" * 2_000_000,
        b'{"data":' * 200_000,
        b'{"data": "a", "n": ' + b"9" * 10_000 + b"}",
        b"\x00" * 100,
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_an_answer_without_a_text(body: bytes, upstream: Upstream, make: Make) -> None:
    error = await failure(make(await upstream.start(answering(body))))
    assert (error.reason, error.may_have_run) == (Reason.UPSTREAM_OUTPUT_INVALID, True)


async def test_a_body_may_have_2_mib_and_no_more(upstream: Upstream, make: Make) -> None:
    body = json.dumps(text()).encode()
    service = make(await upstream.start(lambda exchange: exchange.answer(body)))
    body = body.ljust(2 * 1024 * 1024)
    assert (await complete(service)).text == "refined"
    body += b" "
    error = await failure(service)
    assert error.reason is Reason.UPSTREAM_OUTPUT_INVALID
    assert "2 MiB" in error.message


async def test_an_answer_to_a_callers_own_prompt_may_have_256_kib_and_no_more(upstream: Upstream, make: Make) -> None:
    body = json.dumps({"data": {"outputs": "refined"}, "trace_id": TRACE}).encode()
    service = make(await upstream.start(lambda exchange: exchange.answer(body)))
    prompt = InlinePrompt({"prompt": {"messages": []}})
    body = body.ljust(256 * 1024)
    assert (await service.complete(prompt, INPUTS, tool_call())).text == "refined"
    body += b" "
    with pytest.raises(UpstreamFailed) as caught:
        await service.complete(prompt, INPUTS, tool_call())
    assert (caught.value.reason, caught.value.may_have_run) == (Reason.UPSTREAM_OUTPUT_INVALID, True)
    assert "256 KiB" in caught.value.message


class Turns:
    """Paces by a gate, and remembers whose work it was and how many pauses it has."""

    def __init__(self) -> None:
        self.done: list[tuple[Hashable, int]] = []
        self.open = asyncio.Event()

    async def run(self, caller: Hashable, steps: Generator[None, None, Any], /) -> Any:
        await self.open.wait()
        results: list[Any] = []

        def doing() -> Generator[None, None, None]:
            results.append((yield from steps))

        self.done.append((caller, len(list(doing()))))
        return results[0]


@pytest.mark.parametrize(("more", "turns"), [(0, []), (1, [(ANONYMOUS.key, 1)])])
async def test_large_answers_are_read_in_turns(more: int, turns: list[object], upstream: Upstream, make: Make) -> None:
    pace = Turns()
    pace.open.set()
    body = json.dumps(text()).encode().ljust(LARGE_BYTES + more)
    service = make(await upstream.start(answering(body)), pace=pace)
    assert (await complete(service)).text == "refined"
    assert pace.done == turns


async def test_an_answer_whose_turn_does_not_come_in_time_is_not_read(upstream: Upstream, make: Make) -> None:
    body = json.dumps(text()).encode().ljust(LARGE_BYTES + 1)
    service = make(await upstream.start(answering(body)), pace=Turns(), max_seconds=1.0, min_seconds=0)
    error = await failure(service)
    assert (error.reason, error.may_have_run, error.healthy) == (Reason.UPSTREAM_TIMEOUT, True, None)
    assert "large answers were being read" in error.message


async def test_a_body_of_too_many_values_is_not_parsed(
    upstream: Upstream, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make(await upstream.start(answering(json.dumps({**text(), "more": [[]] * 10_000}).encode())))
    parsed: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(json, "loads", parsed.append)
        error = await failure(service)
    assert not any(parsed)
    assert (error.reason, error.may_have_run) == (Reason.UPSTREAM_OUTPUT_INVALID, True)
    assert "10,000 values" in error.message


async def test_a_body_is_not_read_any_further(upstream: Upstream, make: Make) -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await exchange.send(b" " * 65536)

    error = await failure(make(await upstream.start(flood)))
    assert error.reason is Reason.UPSTREAM_OUTPUT_INVALID
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def test_a_compressed_answer_is_not_unfolded(upstream: Upstream, make: Make) -> None:
    packed = gzip.compress(json.dumps(text()).encode())
    service = make(await upstream.start(answering(packed, headers="content-encoding: gzip\r\n")))
    error = await failure(service)
    assert error.reason is Reason.UPSTREAM_OUTPUT_INVALID
    assert "compressed" in error.message


async def test_content_encoding_identity_is_none(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text(), headers="content-encoding: Identity\r\n")))
    assert (await complete(service)).text == "refined"


@pytest.mark.parametrize(
    ("fields", "trace_id"),
    [
        ({"trace_id": TRACE}, TRACE),
        ({"trace_id": TRACE.upper()}, TRACE),
        ({"trace_id": "a66e7c55-acfd-7563-2968-e0b8df25282c"}, TRACE),
        ({"traceId": TRACE}, TRACE),
        ({"trace_id": None, "traceId": TRACE}, TRACE),
        ({"trace_id": TRACE[:-1]}, ""),
        ({"trace_id": TRACE + "\n"}, ""),
        ({"trace_id": "<script>"}, ""),
        ({"trace_id": "٣" * 32}, ""),
        ({"trace_id": 1}, ""),
        ({"trace_id": [TRACE]}, ""),
        ({"nested": {"trace_id": TRACE}}, ""),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
async def test_trace_id(fields: dict[str, object], trace_id: str, status: int, upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering({"data": "text", **fields}, status=status)))
    if status == 200:
        assert (await complete(service)).attempt.trace_id == trace_id
    else:
        assert (await failure(service)).attempts[0].trace_id == trace_id


# Failures by status.


@pytest.mark.parametrize(
    ("status", "reason", "may_have_run", "retryable"),
    [
        (201, "OUTPUT_INVALID", True, False),
        (204, "OUTPUT_INVALID", True, False),
        (301, "REJECTED", False, False),
        (304, "REJECTED", False, False),
        (307, "REJECTED", False, False),
        (400, "REJECTED", False, False),
        (401, "CREDENTIALS_REJECTED", False, False),
        (403, "CREDENTIALS_REJECTED", False, False),
        (404, "REJECTED", False, False),
        (408, "REJECTED", False, False),
        (422, "REJECTED", False, False),
        (424, "PROVIDER_FAILED", False, False),
        (429, "RATE_LIMITED", False, True),
        (499, "REJECTED", False, False),
        (500, "FAILED", True, False),
        (502, "FAILED", True, False),
        (503, "FAILED", True, False),
        (504, "TIMEOUT", True, False),
        (599, "FAILED", True, False),
        (600, "OUTPUT_INVALID", True, False),
        (999, "OUTPUT_INVALID", True, False),
    ],
)
async def test_statuses(
    status: int, reason: str, may_have_run: bool, retryable: bool, upstream: Upstream, make: Make
) -> None:
    body = b"" if status in (204, 304) else json.dumps(text(detail="secret detail")).encode()
    service = make(await upstream.start(answering(body, status=status, headers="retry-after: 7\r\n")))
    error = await failure(service)
    assert error.reason is Reason[f"UPSTREAM_{reason}"]
    assert (error.may_have_run, error.retryable) == (may_have_run, retryable)
    assert error.retry_delay == (7.0 if retryable else None)
    assert error.attempts[0].trace_id == ("" if not body else TRACE)
    assert "secret detail" not in error.message
    assert "{" not in error.message


async def test_a_redirect_does_not_carry_the_key_away(upstream: Upstream, other_upstream: Upstream, make: Make) -> None:
    elsewhere = await other_upstream.start(answering(text()))
    service = make(await upstream.start(answering(b"", status=302, headers=f"location: {elsewhere}\r\n")))
    assert (await failure(service)).reason is Reason.UPSTREAM_REJECTED
    assert other_upstream.connections == 0


async def test_the_status_counts_when_the_rest_of_a_failure_breaks(upstream: Upstream, make: Make) -> None:
    async def unavailable(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 1000\r\n\r\n{")
        exchange.writer.close()

    error = await failure(make(await upstream.start(unavailable)))
    assert (error.reason, error.retry_delay) == (Reason.UPSTREAM_UNAVAILABLE, 3.0)


async def test_the_status_counts_when_a_failure_is_huge(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(b"x" * 3_000_000, status=503)))
    assert (await failure(service)).reason is Reason.UPSTREAM_UNAVAILABLE


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("99999", 3600.0),
        ("9" * 10_000, 3600.0),
        ("-5", None),
        ("1.5", 2.0),
        ("2.", 2.0),
        ("0.0", 0.0),
        ("1.5.0", None),
        ("٣", None),
        ("soon", None),
        ("nan", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Thu, 01 Jan 2026 12:00:20 -0000", 20.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=1), usegmt=True), 3600.0),
        ("Thu, 01 Jan 99999 12:00:00 GMT", None),
        ("Thu, 99 Jan 2026 12:00:00 GMT", None),
        ("Thu, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Thu, 01 Jan 2026 12:00:00 +99999999999999999999", None),
    ],
)
def test_retry_delay(value: str | None, seconds: float | None) -> None:
    assert retry_delay(value, now=NOW) == seconds


# Failures of the connection.


async def test_a_refused_connection(closed_port: int, make: Make) -> None:
    error = await failure(make(f"http://127.0.0.1:{closed_port}"))
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert (error.may_have_run, error.retryable) == (False, True)
    assert error.attempts[0].trace_id == ""


async def test_a_server_that_is_not_trusted(upstream: Upstream, server_tls: ssl.SSLContext, make: Make) -> None:
    error = await failure(make(await upstream.start(answering(text()), server_tls)))
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert upstream.exchanges == []


async def test_a_server_that_is_trusted(
    upstream: Upstream, server_tls: ssl.SSLContext, ca_file: Path, make: Make
) -> None:
    service = make(await upstream.start(answering(text()), server_tls), ca_file=ca_file)
    assert (await complete(service)).text == "refined"


async def test_a_connection_that_takes_too_long(upstream: Upstream, make: Make) -> None:
    url = (await upstream.start(None)).replace("http:", "https:")
    error = await failure(make(url, max_seconds=0.8, min_seconds=0.1))
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert (error.may_have_run, error.retryable) == (False, True)


@pytest.mark.parametrize(
    "handler", [close_before_answering, close_within_the_body, reset_within_the_body, send_garbage]
)
async def test_a_connection_that_breaks(handler: Handler, upstream: Upstream, make: Make) -> None:
    error = await failure(make(await upstream.start(handler)))
    assert error.reason is Reason.UPSTREAM_BROKEN
    assert (error.may_have_run, error.retryable) == (True, False)
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize(
    ("status", "healthy"),
    [(201, True), (302, True), (401, True), (424, True), (429, True)]
    + [(status, False) for status in (404, 500, 502, 503, 504, 599)],
)
async def test_what_a_status_tells_of_agenta(status: int, healthy: bool, upstream: Upstream, make: Make) -> None:
    assert (await failure(make(await upstream.start(answering(b"", status=status))))).healthy is healthy


async def test_what_connections_tell_of_agenta(closed_port: int, upstream: Upstream, make: Make) -> None:
    assert (await failure(make(f"http://127.0.0.1:{closed_port}"))).healthy is False
    assert (await failure(make(await upstream.start(close_before_answering)))).healthy is False


async def test_a_machine_without_a_file_left_tells_nothing_of_agenta(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text())))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        error = await failure(service)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(last)
    assert (error.reason, error.may_have_run, error.healthy) == (Reason.UPSTREAM_UNREACHABLE, False, None)
    assert "no file descriptor left" in error.message
    assert (await complete(service)).text == "refined"


@pytest.mark.parametrize(("max_seconds", "healthy"), [(0.5, False), (1.5, None)])
@pytest.mark.parametrize("silent", ["server", "handshake"])
async def test_impatient_callers_tell_nothing_of_agenta(
    silent: str, max_seconds: float, healthy: bool | None, upstream: Upstream, make: Make
) -> None:
    url = await upstream.start(stall)
    if silent == "handshake":
        url, max_seconds = url.replace("http:", "https:"), max_seconds - 0.2
    service = make(url, max_seconds=max_seconds, min_seconds=0.1)
    with pytest.raises(UpstreamFailed) as caught:
        await complete(service, deadline=asyncio.get_running_loop().time() + 0.6)
    assert caught.value.healthy is healthy


@pytest.mark.parametrize("handler", [stall, stall_within_the_body, drip])
async def test_the_whole_call_is_bounded(handler: Handler, upstream: Upstream, make: Make) -> None:
    # Half of it is for connecting.
    service = make(await upstream.start(handler), max_seconds=1.0, min_seconds=0.1)
    started = time.monotonic()
    error = await failure(service)
    assert 0.9 < time.monotonic() - started < 6
    assert 0.9 < error.attempts[0].seconds < 6
    assert error.reason is Reason.UPSTREAM_TIMEOUT
    assert (error.may_have_run, error.retryable) == (True, False)
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def test_a_connection_that_the_server_closed_while_idle(upstream: Upstream, make: Make) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(text()).encode())
        exchange.writer.close()

    service = make(await upstream.start(handler))
    await complete(service)
    await asyncio.wait_for(upstream.ended.wait(), 5)
    await asyncio.sleep(0.02)
    assert (await complete(service)).text == "refined"


# Time.


async def test_the_deadline_leaves_time_for_the_way_back(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(stall), min_seconds=0.1)
    took = []
    # On a busy machine, one of them may be late.
    for _ in range(5):
        started = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamFailed) as caught:
            await complete(service, deadline=started + 0.75)
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT
        took.append(asyncio.get_running_loop().time() - started)
    assert 0.49 < min(took) < 0.75


@pytest.mark.parametrize("seconds", [-1000.0, 0.0, 0.9])
async def test_too_little_time(seconds: float, upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text())))
    with pytest.raises(Refused, match="Less than 1 second left") as caught:
        await complete(service, deadline=asyncio.get_running_loop().time() + seconds)
    assert caught.value.reason is Reason.DEADLINE_TOO_SHORT
    assert upstream.connections == 0


async def test_too_little_time_is_left_once_the_call_is_recorded(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text())))
    call = tool_call()

    async def record_slowly() -> None:
        call.deadline = asyncio.get_running_loop().time() + 0.9

    call.on_billing = record_slowly
    with pytest.raises(Refused, match="Less than 1 second left"):
        await service.complete(DeployedPrompt("ai-refine"), INPUTS, call)
    assert upstream.connections == 0


async def test_no_least_time_still_refuses_what_is_over(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(answering(text())), min_seconds=0.0)
    with pytest.raises(Refused):
        await complete(service, deadline=asyncio.get_running_loop().time())
    assert upstream.connections == 0


async def test_a_late_deadline_does_not_prolong_a_call(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(stall), max_seconds=0.1, min_seconds=0.1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamFailed):
        await complete(service, deadline=started + 1000)
    assert asyncio.get_running_loop().time() - started < 5


@pytest.mark.parametrize("handler", [stall, stall_within_the_body])
async def test_a_cancelled_call_closes_its_connection(handler: Handler, upstream: Upstream, make: Make) -> None:
    call = asyncio.create_task(complete(make(await upstream.start(handler))))
    await asyncio.wait_for(upstream.arrived.wait(), 5)
    await asyncio.sleep(0.02)
    assert not upstream.ended.is_set()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def test_many_calls_at_once(upstream: Upstream, make: Make) -> None:
    calls = 200
    all_there = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if len(upstream.exchanges) == calls:
            all_there.set()
        await all_there.wait()
        await exchange.answer(json.dumps(text(json.loads(exchange.body)["inputs"]["n"])).encode())

    service = make(await upstream.start(handler))
    completions = await asyncio.gather(
        *(service.complete(DeployedPrompt("app"), {"n": str(n)}, tool_call()) for n in range(calls))
    )
    assert [completion.text for completion in completions] == [str(n) for n in range(calls)]


async def test_closing_ends_calls_that_run_and_later_ones(upstream: Upstream, make: Make) -> None:
    service = make(await upstream.start(stall))
    call = asyncio.create_task(failure(service))
    await asyncio.wait_for(upstream.arrived.wait(), 5)
    await service.aclose()
    assert (await call).reason is Reason.UPSTREAM_BROKEN
    assert (await failure(service)).reason is Reason.UPSTREAM_UNREACHABLE


# Settings.


@pytest.mark.parametrize(
    ("api_url", "expected"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example/api", "https://a.example"),
        ("https://a.example/api/", "https://a.example"),
        ("https://a.example/services", "https://a.example"),
        ("https://a.example/api/services//", "https://a.example"),
        (" HTTPS://A.Example/api\n", "https://a.example"),
        ("http://[::1]:8000/agenta/api", "http://[::1]:8000/agenta"),
        ("http://localhost:80/apiary", "http://localhost:80/apiary"),
    ],
)
def test_address(api_url: str, expected: str) -> None:
    assert AgentaAddress.parse(api_url).root == expected


@pytest.mark.parametrize(
    "api_url",
    [
        *(
            "",
            "a.example",
            "a.example:8000",
            "localhost:80",
            "//a.example",
            "ftp://a.example",
            "http://",
            "http:///api",
        ),
        *(
            "http://hunter2@a.example",
            "http://u:hunter2@a.example",
            "http://a.example?hunter2",
            "http://a.example#hunter2",
        ),
        *("http://a.example:x", "http://a.example:99999", "http://a example", "http://a.example/\x00", "http://[::1"),
    ],
)
def test_what_is_no_api_url(api_url: str) -> None:
    with pytest.raises(ValueError, match=r"^Agenta's API URL ") as caught:
        AgentaConfig(api_url=api_url, api_key=KEY, environment="production")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("api_key", ["", "hunter2 ", "hunter2\r\nx: y", "hünter2", "hunter2\x00"])
def test_what_is_no_api_key(api_key: str) -> None:
    with pytest.raises(ValueError, match="The API key must") as caught:
        AgentaConfig(api_url="https://a.example", api_key=api_key, environment="production")
    assert "nter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("least", "most"), [(-1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_what_are_no_times(least: float, most: float) -> None:
    with pytest.raises(ValueError, match="min_seconds must be"):
        AgentaConfig(
            api_url="https://a.example", api_key=KEY, environment="production", min_seconds=least, max_seconds=most
        )


async def test_secrets_do_not_show(make: Make) -> None:
    service = make("https://a.example", proxy="http://user:hunter2@proxy.example")
    shown = " ".join(f"{thing!r} {thing}" for thing in (service, *vars(service).values()))
    assert KEY not in shown
    assert "hunter2" not in shown
