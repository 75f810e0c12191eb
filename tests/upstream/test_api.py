from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi, ApiResponse
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import MAX_BODY_BYTES, HttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from upstream.conftest import Exchange, Upstream

    Make = Callable[[str], AgentaApi]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    clients: list[HttpClient] = []

    def make(url: str) -> AgentaApi:
        clients.append(HttpClient(url))
        return AgentaApi(clients[-1], AgentaAddress.parse(url), ServerKey("the-key"), seconds=5)

    yield make
    for client in clients:
        await client.aclose()


async def test_get_and_post(upstream: Upstream, make: Make) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b'{"count": 1}', status=418)

    api = make(await upstream.start(handler))
    assert await api.get("traces/1", {"a b": "c&d"}) == ApiResponse(418, {"count": 1})
    assert await api.post("simple/applications/", {"ü": [1]}) == ApiResponse(418, {"count": 1})
    first, second = upstream.exchanges
    assert first.head.startswith("GET /api/traces/1?a+b=c%26d HTTP/1.1\r\n")
    assert second.head.startswith("POST /api/simple/applications/ HTTP/1.1\r\n")
    assert json.loads(second.body) == {"ü": [1]}
    for exchange in upstream.exchanges:
        assert "\r\nauthorization: ApiKey the-key\r\n" in exchange.head.lower().replace("apikey", "ApiKey")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000])
async def test_a_body_that_is_no_json(body: bytes, upstream: Upstream, make: Make) -> None:
    api = make(await upstream.start(lambda exchange: exchange.answer(body, status=502)))
    assert await api.get("x") == ApiResponse(502, None)


async def test_a_body_that_is_too_large(upstream: Upstream, make: Make) -> None:
    api = make(await upstream.start(lambda exchange: exchange.answer(b" " * (MAX_BODY_BYTES + 1))))
    with pytest.raises(ValueError, match="more than 2 MiB"):
        await api.get("x")


async def test_no_connection(closed_port: int, make: Make) -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        await make(f"http://127.0.0.1:{closed_port}").get("x")
    assert "the-key" not in str(caught.value)
