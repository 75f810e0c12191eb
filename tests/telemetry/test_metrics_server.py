"""What the port of the metrics takes: it needs no credentials, and shares file descriptors with the service."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import aiohttp
import pytest
from addresses import free_address
from conftest import settings_for
from prometheus_client.registry import Collector
from telemetry.conftest import scrape

from agenta_ai_server.commands import serve
from agenta_ai_server.telemetry import metrics_server
from agenta_ai_server.telemetry.metrics import Metrics
from agenta_ai_server.telemetry.metrics_server import MAX_SCRAPERS, MetricsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from prometheus_client import Metric

    from agenta_ai_server.standin.app import StandIn

CANARY = "canary-in-the-error"


@pytest.fixture
async def metrics(standin: StandIn) -> AsyncIterator[str]:
    metrics = free_address()
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_METRICS_LISTEN=metrics)):
        yield metrics


async def test_scrapers_are_few_and_disconnected_after_a_while(metrics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = metrics.rpartition(":")
    threads = threading.active_count()
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(3 * MAX_SCRAPERS)]
    for _, writer in connections:
        writer.write(b"GET /metrics HTTP/1.1\r\nx: ")
    ended = [asyncio.create_task(_end(reader)) for reader, _ in connections]
    for _ in range(2 * MAX_SCRAPERS):
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        ended = [each for each in ended if not each.done()]
        if len(ended) <= MAX_SCRAPERS:
            break
    assert len(ended) == MAX_SCRAPERS
    assert threading.active_count() <= threads + MAX_SCRAPERS
    for _, writer in connections:
        writer.write(b"x")  # one that goes on sending is disconnected, too
    monkeypatch.setattr(metrics_server, "SCRAPER_SECONDS", 0.0)
    await asyncio.gather(*ended)
    while threading.active_count() > threads:  # noqa: ASYNC110  # a connection counts until its thread has closed it
        await asyncio.sleep(0.01)
    monkeypatch.setattr(metrics_server, "SCRAPER_SECONDS", 60.0)
    assert "agenta_ai_calls_total" not in await scrape(metrics)
    for _, writer in connections:
        writer.close()


async def test_a_scrape_that_fails(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Collector):
        def describe(self) -> Iterable[Metric]:
            return ()

        def collect(self) -> Iterable[Metric]:
            raise TypeError(CANARY)

    metrics, address = Metrics("1"), free_address()
    metrics.registry.register(Broken())
    server = MetricsServer(metrics, address)
    await server.start()
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        assert (response.status, await response.text()) == (
            500,
            "The scrape failed. The server's log names the error.\n",
        )
    await server.aclose()
    assert "a scrape failed: TypeError" in caplog.text
    assert CANARY not in caplog.text
    assert capfd.readouterr().err == ""


async def test_scrapes_take_turns() -> None:
    """Many at once would leave the event loop little of the CPU."""
    both, met = threading.Barrier(2), []

    class Slow(Collector):
        def collect(self) -> Iterable[Metric]:
            try:
                met.append(both.wait(0.2))
            except threading.BrokenBarrierError:
                both.reset()
            return ()

    metrics, address = Metrics("1"), free_address()
    server = MetricsServer(metrics, address)
    await server.start()
    metrics.registry.register(Slow())
    met.clear()
    await asyncio.gather(scrape(address), scrape(address))
    await server.aclose()
    assert not met


async def _end(reader: asyncio.StreamReader) -> None:
    """Return when the server has closed the connection."""
    try:
        await reader.read()
    except ConnectionError:
        return
