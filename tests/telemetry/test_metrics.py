"""The metrics of a real server after calls that end in every way."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import trustme
from addresses import free_address
from calls import REFINE, refine, request
from conftest import connected, settings_for
from guarantee.test_repair import FEWER, GOOD, LOSSY
from ops.test_process import environment, output, process
from telemetry.conftest import scrape, scrape_until, text_of

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve
from agenta_ai_server.domain.listener import CallOutcome
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.telemetry.metrics import MAX_TOOLS, OTHER_TOOLS, Metrics
from agenta_ai_server.tools.refine_prompt.refiner import Refiner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemetry.conftest import Samples

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.standin.app import StandIn

REQUIRED = {
    "agenta_ai_build_info",
    "agenta_ai_call_seconds_bucket",
    "agenta_ai_calls_total",
    "agenta_ai_in_flight",
    "agenta_ai_overhead_seconds_bucket",
    "agenta_ai_repaired_total",
    "agenta_ai_replayed_total",
    "agenta_ai_upstream_retries_total",
    "agenta_ai_upstream_seconds_bucket",
    "agenta_ai_waiting",
    "process_cpu_seconds_total",
}


@pytest.fixture
def metrics() -> str:
    return free_address()


async def fails(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def cancelled(stub: Any, standin: StandIn, asked: tool_service_pb2.CallToolRequest) -> None:
    call = stub.CallTool(asked, timeout=30)
    running = asyncio.ensure_future(call)
    await standin.when(lambda: standin.in_flight == 1)
    call.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await standin.when(lambda: standin.in_flight == 0)


async def late(stub: Any, standin: StandIn) -> None:
    """A call whose deadline passes while it runs: its run has one of its own, and ends a while later."""
    asked = refine(guidelines="standin: delay=50")
    asked.request_id = str(uuid4())
    await fails(stub.CallTool(asked, timeout=4))
    await standin.when(lambda: standin.in_flight == 0)


async def until_counted(metrics: str, count: int) -> Samples:
    """Scrape when so many calls have ended."""
    return await scrape_until(metrics, lambda samples: sum(samples.get("agenta_ai_calls_total", {}).values()) >= count)


@pytest.mark.usefixtures("late_arrivals")
async def test_after_a_mix_of_calls(
    standin: StandIn, metrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("burst = 13\nper_minute = 1\n")
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
        AGENTA_AI_GRPC_LIMITS="on",
        AGENTA_AI_GRPC_LIMITS_FILE=str(limits),
        AGENTA_AI_GRPC_BREAKER="on",
        AGENTA_AI_GRPC_RETRIES="1",
        AGENTA_AI_GRPC_REPAIRS="1",
        AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="2",
    )
    async with connected(settings) as stub:
        await stub.Status(tool_service_pb2.StatusRequest())
        await stub.ListTools(tool_service_pb2.ListToolsRequest())
        named = refine()
        named.request_id = str(uuid4())
        for _ in range(3):
            await stub.CallTool(named)
        standin.respond = in_turn(
            None,  # a success
            Fault(status=503), None,  # a retry
            LOSSY, GOOD,  # a repair
            LOSSY, FEWER,  # one that fails
            Fault(status=500),
        )  # fmt: skip
        for _ in range(5):
            await stub.CallTool(refine())
        await fails(stub.CallTool(request({"prompt_template_json": 7})))
        await fails(stub.CallTool(request({}, name="tools.of.no.body\n with a prompt")))
        await fails(stub.CallTool(refine(), timeout=1.9))
        await late(stub, standin)
        await cancelled(stub, standin, refine(guidelines="standin: delay=50"))
        with monkeypatch.context() as patched:
            patched.setattr(Refiner, "refine", None)
            await fails(stub.CallTool(refine()))
        await stub.CallTool(refine())
        await stub.CallTool(refine())
        await fails(stub.CallTool(refine()))
        samples = await until_counted(metrics, 19)

    assert {name for name in REQUIRED if name not in samples} == set()
    assert samples["agenta_ai_calls_total"] == {
        ("OK", "Status", "", ""): 1,
        ("OK", "ListTools", "", ""): 1,
        ("OK", "CallTool", "", REFINE): 3 + 3 + 2,
        ("OK", "CallTool", "UPSTREAM_OUTPUT_INVALID", REFINE): 1,
        ("OK", "CallTool", "UPSTREAM_FAILED", REFINE): 1,
        ("INVALID_ARGUMENT", "CallTool", "ARGUMENTS_INVALID", REFINE): 1,
        ("NOT_FOUND", "CallTool", "TOOL_NOT_FOUND", "unknown"): 1,
        ("DEADLINE_EXCEEDED", "CallTool", "DEADLINE_TOO_SHORT", REFINE): 1,
        ("DEADLINE_EXCEEDED", "CallTool", "", REFINE): 1,
        ("CANCELLED", "CallTool", "", REFINE): 1,
        ("INTERNAL", "CallTool", "", REFINE): 1,
        ("RESOURCE_EXHAUSTED", "CallTool", "RATE_LIMITED", REFINE): 1,
    }
    assert samples["agenta_ai_call_seconds_count"][("CallTool", REFINE)] == 16
    assert samples["agenta_ai_replayed_total"] == {(): 2}
    assert samples["agenta_ai_repaired_total"] == {("repaired",): 1, ("failed",): 1}
    assert samples["agenta_ai_upstream_retries_total"] == {(): 1}
    assert samples["agenta_ai_upstream_seconds_count"] == {
        ("OK", REFINE): 1 + 1 + 1 + 2 + 2 + 2,
        ("UPSTREAM_UNAVAILABLE", REFINE): 1,
        ("UPSTREAM_FAILED", REFINE): 1,
        ("CANCELLED", REFINE): 2,
    }
    # Only of calls that sent a request and were answered.
    assert samples["agenta_ai_overhead_seconds_count"] == {(REFINE,): 1 + 5 + 2}
    assert samples["agenta_ai_limiter_state"] == samples["agenta_ai_replay_store_state"] == {(): 1}
    assert samples["agenta_ai_breaker_state"] == {(): 0}
    assert samples["agenta_ai_in_flight"] == samples["agenta_ai_waiting"] == {(): 0}
    assert not [name for name in samples if name.endswith("_created")]


async def test_of_those_who_are_denied(standin: StandIn, metrics: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    idle = create_key(path, user="u", organization="o", project="p", permissions=[], expires=None)
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
        AGENTA_AI_GRPC_AUTH="api_keys",
        AGENTA_AI_GRPC_API_KEYS_FILE=str(path),
    )
    async with connected(settings) as stub:
        await fails(stub.CallTool(refine()))
        await fails(stub.CallTool(refine(), metadata=[("authorization", f"ApiKey {idle}")]))
        samples = await scrape(metrics)
    assert samples["agenta_ai_calls_total"] == {
        # Nobody has looked yet at what it asks for.
        ("UNAUTHENTICATED", "CallTool", "CREDENTIALS_INVALID", "unknown"): 1,
        ("PERMISSION_DENIED", "CallTool", "PERMISSION_DENIED", REFINE): 1,
    }


async def test_what_is_unreadable(standin: StandIn, metrics: str) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics)
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        send: Any = channel.unary_unary("/agenta.ai.v1.ToolService/CallTool")
        await fails(send(b"\xff"))
        await fails(send(b" " * (1 << 20) + b" "))
        other: Any = channel.unary_unary("/agenta.ai.v1.ToolService/Other")
        await fails(other(b""))
        samples = await scrape(metrics)
    assert samples["agenta_ai_calls_total"] == {
        ("INVALID_ARGUMENT", "CallTool", "REQUEST_MALFORMED", "unknown"): 1,
        ("INVALID_ARGUMENT", "CallTool", "REQUEST_TOO_LARGE", "unknown"): 1,
    }


async def test_what_goes_on_now(standin: StandIn, metrics: str) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics, AGENTA_AI_GRPC_MAX_IN_FLIGHT="8")
    async with connected(settings) as stub:
        running = [stub.CallTool(refine(guidelines="standin: delay=50")) for _ in range(10)]
        samples = await scrape_until(metrics, lambda samples: samples["agenta_ai_waiting"] == {(): 2})
        assert samples["agenta_ai_in_flight"] == {(): 8}
        for call in running:
            call.cancel()
        samples = await until_counted(metrics, 10)
    assert samples["agenta_ai_calls_total"] == {("CANCELLED", "CallTool", "", REFINE): 10}


async def test_an_open_breaker(standin: StandIn, metrics: str) -> None:
    standin.fault = Fault(status=500)
    settings = settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics, AGENTA_AI_GRPC_BREAKER="on")
    async with connected(settings) as stub:
        for _ in range(20):
            await stub.CallTool(refine())
        samples = await scrape(metrics)
    assert samples["agenta_ai_breaker_state"] == {(): 2}


async def test_a_certificate_that_expires(standin: StandIn, metrics: str, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
        AGENTA_AI_GRPC_TLS_CERT_FILE=str(tmp_path / "cert.pem"),
        AGENTA_AI_GRPC_TLS_KEY_FILE=str(tmp_path / "key.pem"),
    )
    async with serve.running(settings):
        samples = await scrape(metrics)
    assert samples["agenta_ai_certificate_expiry_seconds"][()] > time.time()


async def test_each_server_has_its_own(standin: StandIn) -> None:
    one, other = free_address(), free_address()
    async with (
        connected(settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=one)) as stub,
        connected(settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=other)),
    ):
        await stub.CallTool(refine())
        assert (await scrape(one))["agenta_ai_calls_total"] == {("OK", "CallTool", "", REFINE): 1}
        assert "agenta_ai_calls_total" not in await scrape(other)
    with pytest.raises(OSError, match="refused"):
        await text_of(one)


async def test_a_busy_port_stops_the_start(standin: StandIn) -> None:
    taken = standin.url.removeprefix("http://")
    async with process("serve", **environment(standin, AGENTA_AI_GRPC_METRICS_LISTEN=taken)) as started:
        code, _, err = await output(started)
    assert code == 3
    assert "listening on" not in err
    assert err.splitlines()[-1] == (
        f"agenta-ai-server can't serve metrics on {taken}: it is in use, or isn't an address of this machine. "
        "AGENTA_AI_GRPC_METRICS_LISTEN sets the address."
    )


async def test_they_are_there_before_the_port_and_until_the_end(standin: StandIn, metrics: str) -> None:
    address = free_address()
    settings = settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics, AGENTA_AI_GRPC_LISTEN=address)
    async with serve.running(settings):
        pass
    async with serve.running(settings), grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)
        await stub.Status(tool_service_pb2.StatusRequest())
        assert "agenta_ai_build_info" in await text_of(metrics)


def test_tools_that_come_and_go_do_not_add_up(make_call: Callable[[], Call]) -> None:
    metrics = Metrics("1")
    for number in range(MAX_TOOLS + 50):
        call = make_call()
        call.tool = f"tools.a.b.t{number}"
        metrics.call_ended(call, CallOutcome(code="OK", seconds=0.1))
    calls = [
        sample
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "agenta_ai_calls_total"
    ]
    assert len(calls) == MAX_TOOLS + 1
    assert [sample.value for sample in calls if sample.labels["tool"] == OTHER_TOOLS] == [50]
