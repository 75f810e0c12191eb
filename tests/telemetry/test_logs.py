"""What is written of calls, and what never is."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import signal
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
import pytest
from addresses import free_address
from calls import REFINE, refine, request
from conftest import connected, settings_for
from guarantee.test_repair import GOOD, LOSSY
from ops.test_process import environment, output, process
from telemetry.conftest import scrape, text_of
from telemetry.test_metrics import fails
from telemetry.test_third_parties import headers, send

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve
from agenta_ai_server.domain.listener import CallOutcome
from agenta_ai_server.rpc import boundary
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.telemetry.call_log import AuditLog, CallLog
from agenta_ai_server.telemetry.logs import FIELDS, JsonFormatter, TextFormatter, log_event
from agenta_ai_server.tools.refine_prompt.refiner import Refiner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemetry.conftest import Collector, Lines

    from agenta_ai_server.domain.call import Call

HEAD = ["time", "level", "logger", "message"]
WHO_AND_WHAT = [
    "call", "request_id", "trace_id", "peer", "method", "tool", "code", "reason", "user", "organization", "project",
    "auth",
]  # fmt: skip
HOW = [
    "seconds", "upstream_seconds", "request_bytes", "response_bytes", "attempts", "upstream_status",
    "agenta_trace_id", "replayed", "repaired",
]  # fmt: skip
CANARY = "canary-in-the-prompt"
CANARY_KEY = "canary-key-0123456789"


def with_key(path: Path, *permissions: str) -> list[tuple[str, str]]:
    key = create_key(path, user="the-user", organization="the-org", project="p", permissions=permissions, expires=None)
    return [("authorization", f"ApiKey {key}")]


def by_key(standin: StandIn, path: Path, **more: str) -> Any:
    more |= {"AGENTA_AI_GRPC_AUTH": "api_keys", "AGENTA_AI_GRPC_API_KEYS_FILE": str(path)}
    return settings_for(standin, **more)


async def test_one_line_for_each_call(standin: StandIn, lines: Lines, tmp_path: Path) -> None:
    good = with_key(tmp_path / "keys.json", "edit_workflows")
    standin.respond = in_turn(LOSSY, GOOD)
    asked = refine()
    asked.request_id = str(uuid4())
    async with connected(by_key(standin, tmp_path / "keys.json", AGENTA_AI_GRPC_REPAIRS="1")) as stub:
        response = await stub.CallTool(asked, metadata=good)
        await stub.CallTool(asked, metadata=good)
        await stub.Status(tool_service_pb2.StatusRequest(), metadata=good)
    run, replayed, status = lines.of("calls")
    assert list(run) == list(replayed) == list(status) == [*HEAD, *WHO_AND_WHAT, *HOW]
    assert re.fullmatch(r"[0-9a-f]{32}", run.pop("call"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", run.pop("time"))
    assert 0 < run.pop("upstream_seconds") < run.pop("seconds") < 10
    assert run == {
        "level": "info",
        "logger": "agenta_ai_server.calls",
        "message": "call ended",
        "request_id": asked.request_id,
        "trace_id": "",
        "peer": "127.0.0.1",
        "method": "CallTool",
        "tool": REFINE,
        "code": "OK",
        "reason": "",
        "user": "the-user",
        "organization": "the-org",
        "project": "p",
        "auth": "api_key",
        "request_bytes": asked.ByteSize(),
        "response_bytes": response.ByteSize(),
        "attempts": 2,
        "upstream_status": 200,
        "agenta_trace_id": response.meta.trace_id,
        "replayed": False,
        "repaired": True,
    }
    assert (replayed["attempts"], replayed["replayed"], replayed["upstream_seconds"]) == (0, True, 0)
    assert (status["method"], status["tool"], status["request_id"]) == ("Status", "", "")


async def test_no_log_record_keeps_a_freed_server(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """Such a record ends the process at some later time, in any test."""
    grpc.aio.server()
    gc.collect()
    assert logging.getLogger().isEnabledFor(logging.DEBUG)
    assert not [record for record in caplog.records if "__dealloc__" in record.msg]


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
async def test_one_line_for_each_request_that_failed(level: str, standin: StandIn, lines: Lines) -> None:
    logging.getLogger().setLevel(level)
    standin.respond = in_turn(Fault(status=503), Fault(cause="unfilled-variable"))
    async with connected(settings_for(standin, AGENTA_AI_GRPC_RETRIES="1")) as stub:
        response = await stub.CallTool(refine())
    first, second = lines.of("upstream")
    (call,) = lines.of("calls")
    assert first["call"] == second["call"] == call["call"]
    assert (first["attempt"], first["upstream_status"], first["agenta_trace_id"]) == (1, 503, "")
    assert (second["attempt"], second["upstream_status"]) == (2, 500)
    assert second["reason"] == "UPSTREAM_MISCONFIGURED"
    assert second["agenta_trace_id"] == call["agenta_trace_id"] == response.meta.trace_id
    assert (call["attempts"], call["upstream_status"]) == (2, 500)
    said = "Error in messages[0].content: Unreplaced variables in curly template: ['name']."
    assert second.get("agenta_said") == (said if level == "DEBUG" else None)
    assert said not in str(response)


@pytest.mark.usefixtures("late_arrivals")
@pytest.mark.parametrize(("code", "timeout"), [("DEADLINE_EXCEEDED", 1.1), ("CANCELLED", 30)])
async def test_a_request_that_outlives_its_call_counts_until_the_call_ends(
    code: str, timeout: float, standin: StandIn, lines: Lines
) -> None:
    asked = refine(guidelines="standin: delay=50")
    asked.request_id = str(uuid4())
    async with connected(settings_for(standin, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0.1")) as stub:
        running = asyncio.ensure_future(stub.CallTool(asked, timeout=timeout))
        await standin.when(lambda: standin.in_flight == 1)
        # What still runs then is cancelled with the connection.
        await asyncio.wait([running], timeout=1.5)
    await asyncio.gather(running, return_exceptions=True)
    (line,) = lines.of("calls")
    assert (line["code"], line["attempts"], line["request_bytes"]) == (code, 1, asked.ByteSize())
    assert 0.5 < line["upstream_seconds"] <= line["seconds"]


@pytest.mark.parametrize(
    ("remaining", "code"),
    [(None, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED"), (0.11, "DEADLINE_EXCEEDED"), (0.13, "CANCELLED")],
)
def test_a_deadline_may_be_rounded_up_on_its_way(remaining: float | None, code: str) -> None:
    assert boundary._code_of_cancellation(10.0, remaining) == code


async def test_all_lines_of_a_call_are_found_by_what_its_caller_got(
    standin: StandIn, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refiner, "refine", None)
    async with connected(settings_for(standin)) as stub:
        await fails(stub.CallTool(refine()))
    (bug,) = lines.of("rpc.boundary")
    (call,) = lines.of("calls")
    assert bug["call"] == call["call"]
    assert call["call"] in bug["message"]
    assert (call["code"], call["reason"]) == ("INTERNAL", "")


async def test_an_audit_line_for_each_denial(standin: StandIn, lines: Lines, tmp_path: Path) -> None:
    idle = with_key(tmp_path / "keys.json")
    settings = by_key(standin, tmp_path / "keys.json")
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        send: Any = channel.unary_unary("/agenta.ai.v1.ToolService/CallTool")
        await fails(send(refine().SerializeToString()))
        await fails(send(refine().SerializeToString(), metadata=idle))
        await fails(send(b"\xff"))
    unknown, idle_line, unread = lines.of("audit")
    assert list(unknown) == list(idle_line) == [*HEAD, *WHO_AND_WHAT]
    assert unknown["level"] == "warning"
    told = [
        (line["code"], line["reason"], line["method"], line["tool"], line["peer"], line["user"], line["auth"])
        for line in (unknown, idle_line, unread)
    ]
    assert told == [
        ("UNAUTHENTICATED", "CREDENTIALS_INVALID", "CallTool", "unknown", "127.0.0.1", "", ""),
        ("PERMISSION_DENIED", "PERMISSION_DENIED", "CallTool", REFINE, "127.0.0.1", "the-user", "api_key"),
        ("UNAUTHENTICATED", "CREDENTIALS_INVALID", "CallTool", "unknown", "127.0.0.1", "", ""),
    ]


def denied(make_call: Callable[[], Call], host: str) -> tuple[Call, CallOutcome]:
    call = make_call()
    call.peer = f"ipv4:{host}:1"
    return call, CallOutcome(code="UNAUTHENTICATED", reason="CREDENTIALS_INVALID", seconds=0.1)


async def test_a_flood_leaves_few_lines(lines: Lines, make_call: Callable[[], Call]) -> None:
    audit = AuditLog(lines=3, hosts=2, seconds=0)
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"):
        for _ in range(100):
            audit.call_ended(*denied(make_call, host))
    assert [line["peer"] for line in lines.of("audit")] == [
        *["10.0.0.1"] * 3, *["10.0.0.2"] * 3, *["10.0.0.3"] * 3,
    ]  # fmt: skip
    lines.text.clear()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [(line["peer"], line["left_out"]) for line in lines.of("audit")] == [
        ("10.0.0.1", 97), ("10.0.0.2", 97), ("others", 197),
    ]  # fmt: skip
    # The next window begins anew, and an end in its midst tells what is left.
    lines.text.clear()
    for _ in range(5):
        audit.call_ended(*denied(make_call, "10.0.0.4"))
    await audit.aclose()
    assert [line.get("left_out", 0) for line in lines.of("audit")] == [0, 0, 0, 2]


@pytest.mark.parametrize("method", ["CallTool", "CallToolStream"])
async def test_calls_that_come_too_late_are_counted_and_share_one_line(
    method: str, standin: StandIn, lines: Lines
) -> None:
    """A stranger could have tens of thousands of them logged in a second."""
    metrics = free_address()
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics)) as address:
        await send(address, [headers(f"/agenta.ai.v1.ToolService/{method}", "grpc-timeout", b"1n")] * 20)
        async with grpc.aio.insecure_channel(address) as channel:
            await ToolServiceStub(channel).Status(tool_service_pb2.StatusRequest())
        counted = (await scrape(metrics))["agenta_ai_calls_total"]
    ended = [line for line in lines.of("calls") if "dropped" not in line]
    (dropped,) = (line for line in lines.of("calls") if "dropped" in line)
    assert [line["code"] for line in ended if line["method"] == "Status"] == ["OK"]
    assert dropped["level"] == "warning"
    # On a slow machine, one may begin just in time. grpc may end some of them itself.
    assert sum(counted.values()) == dropped["dropped"] + len(ended) <= 21
    assert 0 < dropped["dropped"] <= counted["DEADLINE_EXCEEDED", method, "", "unknown"]


async def test_neither_prompts_nor_secrets_are_told(
    standin: StandIn, lines: Lines, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = free_address()
    good = with_key(tmp_path / "keys.json", "edit_workflows")
    settings = by_key(
        standin,
        tmp_path / "keys.json",
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        AGENTA_AI_GRPC_REPAIRS="1",
    )
    template = {"messages": [{"role": "user", "content": f"{CANARY} {{{{text}}}}"}]}
    asked = refine(template, guidelines=CANARY, context=CANARY)
    async with connected(settings) as stub:
        for fault in (None, "answer=lossy", "answer=null", "status=500", "close=body", "garbage=true"):
            with_fault = refine(template, guidelines=f"standin: {fault}" if fault else CANARY, context=CANARY)
            await stub.CallTool(with_fault, metadata=good)
        named = refine(template)
        named.request_id = CANARY
        await fails(stub.CallTool(named, metadata=good))
        await fails(stub.CallTool(request({CANARY: CANARY}), metadata=good))
        await fails(stub.CallTool(request({}, name=CANARY), metadata=good))
        await fails(stub.CallTool(asked, metadata=[("authorization", f"ApiKey {CANARY_KEY}")]))
        await fails(stub.CallTool(asked, metadata=[("authorization", CANARY_KEY), ("traceparent", CANARY)]))
        with monkeypatch.context() as patched:
            patched.setattr(Refiner, "refine", _broken)
            await fails(stub.CallTool(asked, metadata=good))
        scraped = await text_of(metrics)
    secrets = [CANARY, CANARY_KEY, "standin-key", good[0][1].split("_")[-1]]
    written = "\n".join(lines.text)
    assert "ended by a bug" in written
    assert len(lines.of("calls")) == 12
    assert collector.spans
    for place in (written, scraped, collector.raw.decode(errors="replace")):
        assert [secret for secret in secrets if secret in place] == []


async def _broken(*arguments: object) -> None:
    raise ValueError(str(arguments))


def test_an_exception_tells_where_and_not_what() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        record = logging.LogRecord(
            "asyncio", logging.ERROR, "", 0, "not retrieved", (), (type(error), error, error.__traceback__)
        )
    text, line = TextFormatter().format(record), json.loads(JsonFormatter().format(record))
    assert CANARY not in text + line["exception"]
    assert line["exception"].endswith("ValueError")
    assert "test_logs.py" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ada", "ada"),
        ("Zoë@example.com", "Zoë@example.com"),
        (False, "False"),
        (0.5, "0.5"),
        ("eve organization=acme", '"eve organization=acme"'),
        ("eve=acme", '"eve=acme"'),
        ('"eve"', r'"\"eve\""'),
        ("Zoë\\ Ö", r'"Zoë\\ Ö"'),
        ("eve\nroot", r'"eve\nroot"'),
        ("eve\x1b[2K", r'"eve\u001b[2K"'),
        ("eve\u2028\u202e\u00a0", r'"eve\u2028\u202e\u00a0"'),
        ("eve\ud800", r'"eve\ud800"'),
    ],
)
def test_a_value_cant_be_taken_for_another_field(value: object, shown: str) -> None:
    fields = {"user": value, "organization": "", "code": "OK"}
    record = logging.makeLogRecord({"name": "agenta_ai_server.calls", "msg": "call ended", FIELDS: fields})
    assert TextFormatter().format(record).endswith(f"agenta_ai_server.calls: call ended user={shown} code=OK")


@pytest.mark.parametrize(("form", "is_json"), [("", True), ("json", True), ("text", False)])
async def test_the_form_of_a_process_without_a_terminal(form: str, is_json: bool, standin: StandIn) -> None:
    settings = environment(standin) | {"AGENTA_AI_GRPC_LOG_FORMAT": form}
    async with process("serve", **settings) as started:
        assert started.stderr
        while b"listening on" not in (line := await started.stderr.readline()):
            assert line
        started.send_signal(signal.SIGTERM)
        code, _, err = await output(started)
    assert code == 0
    assert line.startswith(b'{"time": ') is is_json
    if is_json:
        assert [json.loads(each)["level"] for each in err.splitlines()]


PROGRAM = """
import asyncio, sys
from agenta_ai_server import settings
from agenta_ai_server.commands import serve

async def main():
    loaded, _ = settings.load({"AGENTA_AI_GRPC_AUTH": "none", "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0"})
    async with serve.running(loaded):
        print(*sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "prometheus_client"}))

asyncio.run(main())
"""


async def test_what_is_off_is_not_imported() -> None:
    started = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
    out, _ = await started.communicate()
    assert started.returncode == 0
    assert out == b"\n"


@pytest.mark.parametrize(
    ("code", "reason", "level"),
    [
        ("OK", "", "info"),
        ("OK", "UPSTREAM_FAILED", "warning"),
        ("INVALID_ARGUMENT", "ARGUMENTS_INVALID", "info"),
        ("UNAUTHENTICATED", "CREDENTIALS_INVALID", "info"),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "info"),
        ("CANCELLED", "", "info"),
        ("UNAVAILABLE", "OVERLOADED", "warning"),
        ("DEADLINE_EXCEEDED", "", "warning"),
        ("INTERNAL", "", "error"),
    ],
)
def test_a_failed_call_has_a_level_above_info(
    code: str, reason: str, level: str, lines: Lines, make_call: Callable[[], Call]
) -> None:
    CallLog().call_ended(make_call(), CallOutcome(code=code, reason=reason, seconds=1))
    (line,) = lines.of("calls")
    assert line["level"] == level


def test_an_event_is_a_record_as_the_library_makes_it(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("agenta_ai_server.events")
    with caplog.at_level(logging.INFO, logger.name):
        logger.warning("it happened", extra={FIELDS: {"call": "id"}})
        log_event(logger, logging.WARNING, "it happened", {"call": "id"})
        log_event(logger, logging.DEBUG, "it didn't", {})
    made, event = caplog.records
    assert vars(event).keys() == vars(made).keys()
    for name in (
        "name",
        "levelno",
        "levelname",
        "msg",
        "message",
        "args",
        "exc_info",
        "exc_text",
        "stack_info",
        FIELDS,
    ):
        assert getattr(event, name) == getattr(made, name)
    assert 0 <= event.created - made.created < 60
    assert int(event.msecs) == int(event.created % 1 * 1000)
