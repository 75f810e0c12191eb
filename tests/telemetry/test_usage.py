"""Tokens and cost: read from Agenta's traces, and counted by tool and organization."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from addresses import free_address
from calls import REFINE, refine
from conftest import connected, settings_for
from prometheus_client import CollectorRegistry
from telemetry.conftest import scrape_until, text_of
from upstream.test_management import answering

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.agenta.usage import Usage, UsageReader
from agenta_ai_server.domain.call import Call, Principal, UpstreamRequest
from agenta_ai_server.domain.values import Attempt
from agenta_ai_server.settings import SettingsError, load
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.telemetry import usage
from agenta_ai_server.telemetry.usage import UsageMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from telemetry.conftest import Samples

    from agenta_ai_server.settings import Settings
    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.standin.received import Received

RECORDED = json.loads(Path("tests/data/trace_captures.json").read_text("utf-8"))
TRACE, SPAN, CHILD = "e4cf1bee69ee436dfb3a84d40d72677c", "d5075ce4069ec95e", "bd96618d4fa04b1f"
USED = Usage(116.0, 29.0, 3.48e-05)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[UsageReader]:
    http = HttpClient(url, keep_alive=False)
    yield UsageReader(AgentaApi(http, AgentaAddress.parse(url), ServerKey("standin-key")))
    await http.aclose()


async def usage_of(url: str, trace_id: str, span_id: str) -> Usage | None:
    async with reading(url) as reader:
        return await reader.read(trace_id, span_id)


def trace(**spans: Any) -> dict[str, Any]:
    return {"count": 1, "trace": {"spans": spans}}


def span(span_id: str, metrics: Any) -> dict[str, Any]:
    return {"span_id": span_id, "attributes": {"ag": {"metrics": metrics}}}


METRICS = {"tokens": {"cumulative": {"total": 3, "prompt": 2, "completion": 1}}}


@pytest.mark.parametrize(
    ("answer", "span_id", "expected"),
    [
        (RECORDED["ready"], SPAN, USED),
        (RECORDED["ready"], CHILD, USED),
        (RECORDED["ready"], "0" * 16, None),
        (RECORDED["not_ready"], SPAN, None),
        (trace(one=[span("1", {}), span("2", METRICS)]), "2", Usage(2, 1, 0)),
        (trace(one=span("1", {"tokens": {"cumulative": {"total": "many"}}})), "1", None),
        (trace(one=span("1", {"tokens": {"cumulative": {"total": -1}}})), "1", None),
        (trace(one=7, two=span("1", [])), "1", None),
        ({"trace": []}, "1", None),
        ([], "1", None),
    ],
)
async def test_what_a_trace_says(answer: Any, span_id: str, expected: Usage | None) -> None:
    async with answering(200, json.dumps(answer).encode()) as (url, _):
        assert await usage_of(url, TRACE, span_id) == expected


@pytest.mark.parametrize("status", [302, 401, 404, 500])
async def test_what_agenta_refuses(status: int) -> None:
    async with answering(status, json.dumps(RECORDED["ready"]).encode()) as (url, _):
        assert await usage_of(url, TRACE, SPAN) is None


async def test_nobody_there_and_no_trace() -> None:
    assert await usage_of("http://127.0.0.1:9", TRACE, SPAN) is None
    assert await usage_of("http://127.0.0.1:9", "../secrets", SPAN) is None


# In the service


def with_usage(standin: StandIn, metrics: str, **more: str) -> Settings:
    on = {"AGENTA_AI_GRPC_METRICS_LISTEN": metrics, "AGENTA_AI_GRPC_USAGE_METRICS": "on"}
    return settings_for(standin, **on, **more)


async def test_the_service_counts_each_request(standin: StandIn) -> None:
    metrics = free_address()
    standin.respond = in_turn(Fault(answer="lossy"))
    # Both requests of the repair belong to the caller's one trace.
    metadata = [("traceparent", f"00-{uuid4().hex}-{uuid4().hex[:16]}-01")]
    async with connected(with_usage(standin, metrics, AGENTA_AI_GRPC_REPAIRS="1")) as stub:
        response = await stub.CallTool(refine(), timeout=30, metadata=metadata)
        assert response.meta.repaired
        assert len({attempt.trace_id for attempt in response.meta.attempts}) == 1
        # The answer didn't wait for it.
        assert not reads(standin)
        await standin.when(lambda: len(reads(standin)) == 2)
        samples = await scrape_until(metrics, costs_what_its_tokens_cost)
    tokens = samples["agenta_ai_tokens_total"]
    assert set(tokens) == {("completion", "", REFINE), ("prompt", "", REFINE)}
    assert samples["agenta_ai_usage_unread_total"] == {(): 0.0}


def costs_what_its_tokens_cost(samples: Samples) -> bool:
    """Whether that is so, which it isn't in a scrape that falls between the counts of a request."""
    tokens = samples.get("agenta_ai_tokens_total", {})
    cost = samples.get("agenta_ai_cost_dollars_total", {})
    return (
        len(tokens) == 2
        and list(cost) == [("", REFINE)]
        and cost["", REFINE] == pytest.approx(sum(tokens.values()) * 2e-7)
    )


def reads(standin: StandIn) -> list[Received]:
    return [each for each in standin.requests if each.path.startswith("/api/traces/")]


async def test_it_is_off_by_default(standin: StandIn) -> None:
    metrics = free_address()
    async with connected(settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics)) as stub:
        await stub.CallTool(refine(), timeout=30)
        assert "agenta_ai_tokens_total" not in await text_of(metrics)
    assert not reads(standin)


def test_it_needs_the_metrics() -> None:
    environment = {"AGENTA_AI_GRPC_AUTH": "none", "AGENTA_AI_GRPC_USAGE_METRICS": "on"}
    with pytest.raises(SettingsError, match="needs AGENTA_AI_GRPC_METRICS_LISTEN"):
        load(environment)


# By itself


class Count:
    """The metrics by themselves, and what they say."""

    def __init__(self, reader: UsageReader, pauses: tuple[float, ...]) -> None:
        self.registry = CollectorRegistry()
        self.metrics = UsageMetrics(reader, self.registry, pauses)

    def ended(self, trace_id: str = TRACE, organization: str = "acme") -> None:
        request = UpstreamRequest("http://agenta")
        request.attempt = Attempt(trace_id, 0.1, SPAN)
        call = Call("0" * 32, "/x/CallTool", (), "test", principal=Principal(user="u", organization=organization))
        self.metrics.request_ended(request, call)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def test_what_never_comes_is_counted_as_unread() -> None:
    async with answering(200, json.dumps(RECORDED["not_ready"]).encode()) as (url, received), reading(url) as reader:
        count = Count(reader, (0, 0, 0))
        count.ended()
        count.ended(trace_id="")
        await count.metrics.aclose()
    assert len(received) == 3
    assert count.value("agenta_ai_usage_unread_total") == 1


async def test_the_end_waits_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "CLOSE_SECONDS", 0.01)
    async with reading("http://127.0.0.1:9") as reader:
        count = Count(reader, (60,))
        count.ended()
        await count.metrics.aclose()
    assert count.value("agenta_ai_usage_unread_total") == 1


async def test_what_waits_and_who_is_told_apart_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_PENDING", 3)
    monkeypatch.setattr(usage, "MAX_ORGANIZATIONS", 2)
    async with answering(200, json.dumps(RECORDED["ready"]).encode()) as (url, _), reading(url) as reader:
        count = Count(reader, (0,))
        for organization in ("a", "b", "c", "d"):
            count.ended(organization=organization)
        await count.metrics.aclose()
    assert count.value("agenta_ai_usage_unread_total") == 1
    for organization in ("a", "b", usage.OTHERS):
        labels = {"tool": "", "organization": organization}
        assert count.value("agenta_ai_tokens_total", kind="prompt", **labels) == USED.prompt_tokens
        assert count.value("agenta_ai_cost_dollars_total", **labels) == USED.dollars
