"""What collects metrics, spans and log lines as an operator's tools do."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.request import urlopen

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from agenta_ai_server.rpc import boundary
from agenta_ai_server.telemetry.logs import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


Samples: TypeAlias = dict[str, dict[tuple[str, ...], float]]


class Collector:
    """Receives spans by OTLP over HTTP.

    Attributes:
        resource: What they say of the service.
        spans: The spans so far, in the order in which they ended.
        raw: What was sent, undecoded.
    """

    def __init__(self) -> None:
        self.resource: dict[str, str] = {}
        self.spans: list[Span] = []
        self.raw = b""

    async def __aenter__(self) -> Self:
        self._server = web.Server(self._receive, access_log=None)
        self._listener = await asyncio.get_running_loop().create_server(self._server, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._server.shutdown()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._listener.sockets[0].getsockname())

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        assert request.path == "/v1/traces"
        body = await request.read()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def _read(address: str) -> str:
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


async def text_of(address: str) -> str:
    return await asyncio.to_thread(_read, address)


async def scrape(address: str) -> Samples:
    """Values by the sample's name and its labels' values in the order of their names."""
    samples: Samples = {}
    for family in text_string_to_metric_families(await text_of(address)):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


async def scrape_until(address: str, condition: Callable[[Samples], bool]) -> Samples:
    """Scrape again and again: of a call that is left, the server is told after its caller."""
    for _ in range(500):
        if condition(samples := await scrape(address)):
            return samples
        await asyncio.sleep(0.02)
    raise AssertionError(samples)


class Lines(logging.Handler):
    """Log lines as the JSON formatter writes them.

    Attributes:
        text: The lines.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    def of(self, logger: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.text]
        return [line for line in parsed if line["logger"] == f"agenta_ai_server.{logger}"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    handler, level = Lines(), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest.fixture
def late_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a call be under way for long: a passed deadline is still told from a caller that leaves."""
    monkeypatch.setattr(boundary, "LATENCY_SECONDS", 0.8)
