from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import traceback
from typing import TYPE_CHECKING

import httpx
import pytest

from agenta_ai_server.upstream.transport import NotConnected, Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from upstream.conftest import Exchange, Upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


def post(url: str, content: bytes = b"hello", *, connect: float = 2.0, read: float = 2.0) -> httpx.Request:
    headers = {"authorization": "ApiKey secret", "accept-encoding": "identity"}
    timeout = {"connect": connect, "read": read}
    return httpx.Request("POST", url, headers=headers, content=content, extensions={"timeout": timeout})


async def fetch(transport: Transport, request: httpx.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, await response.aread()
    finally:
        await response.aclose()


async def test_sends_a_request_and_reads_the_answer(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"world", status=418)

    url = await upstream.start(handler)
    assert await fetch(transport, post(url)) == (418, b"world")
    assert upstream.exchanges[0].body == b"hello"


async def test_a_request_beyond_a_mebibyte(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(str(len(exchange.body)).encode())

    url = await upstream.start(handler)
    assert await fetch(transport, post(url, b"x" * (3 << 20), read=20)) == (200, b"3145728")


async def test_one_connection_serves_one_call_after_the_other(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()

    url = await upstream.start(handler)
    for _ in range(5):
        await fetch(transport, post(url))
    assert upstream.connections == 1


async def test_as_many_connections_as_calls_in_flight(upstream: Upstream, transport: Transport) -> None:
    calls = 250
    all_there = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if len(upstream.exchanges) == calls:
            all_there.set()
        await all_there.wait()
        await exchange.answer(exchange.body)

    url = await upstream.start(handler)
    answers = await asyncio.gather(*(fetch(transport, post(url, str(n).encode(), read=10)) for n in range(calls)))
    assert [body for _, body in answers] == [str(n).encode() for n in range(calls)]


async def test_an_idle_connection_is_not_used_after_its_time(upstream: Upstream) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()

    url = await upstream.start(handler)
    transport = Transport(idle_seconds=0.05)
    await fetch(transport, post(url))
    await asyncio.wait_for(upstream.ended.wait(), 5)
    await fetch(transport, post(url))
    assert upstream.connections == 2
    await transport.aclose()


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    upstream: Upstream, transport: Transport
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()
        exchange.writer.close()

    url = await upstream.start(handler)
    for _ in range(3):
        assert (await fetch(transport, post(url)))[0] == 200
        await asyncio.sleep(0.02)
    assert upstream.connections == 3


async def test_an_answer_that_nobody_asked_for_is_nobodys(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"asked for")
        await asyncio.sleep(0.05)
        await exchange.answer(b"not asked for")

    url = await upstream.start(handler)
    assert (await fetch(transport, post(url)))[1] == b"asked for"
    await asyncio.sleep(0.15)
    assert (await fetch(transport, post(url)))[1] == b"asked for"
    assert upstream.connections == 2


async def stall(exchange: Exchange) -> None:
    await asyncio.Event().wait()


async def close_before_answering(exchange: Exchange) -> None:
    exchange.writer.close()


async def reset_before_answering(exchange: Exchange) -> None:
    exchange.reset()


async def close_within_the_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-le")
    exchange.writer.close()


async def close_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b'{"data"', length=100)
    exchange.writer.close()


async def reset_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b'{"data"', length=100)
    await asyncio.sleep(0.02)
    exchange.reset()


async def close_within_a_chunk(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\nabc")
    exchange.writer.close()


async def send_a_bad_chunk_size(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n")


async def send_garbage(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def send_a_bad_length(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nabc")


async def send_two_lengths(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc")


async def send_a_huge_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "handler",
    [
        close_before_answering,
        reset_before_answering,
        close_within_the_head,
        close_within_the_body,
        reset_within_the_body,
        close_within_a_chunk,
        send_a_bad_chunk_size,
        send_garbage,
        send_a_bad_length,
        send_two_lengths,
        send_a_huge_header,
    ],
)
async def test_what_breaks_after_sending_is_no_connect_error(
    handler: Callable[[Exchange], Awaitable[None]], upstream: Upstream, transport: Transport
) -> None:
    url = await upstream.start(handler)
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await fetch(transport, post(url))
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert len(upstream.exchanges) == 1


async def test_no_call_is_sent_again_when_a_used_connection_breaks(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.answer()
        else:
            exchange.writer.close()

    url = await upstream.start(handler)
    await fetch(transport, post(url))
    with pytest.raises(httpx.RemoteProtocolError):
        await fetch(transport, post(url))
    assert len(upstream.exchanges) == 2


async def test_read_is_bounded(upstream: Upstream, transport: Transport) -> None:
    url = await upstream.start(stall)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, post(url, read=0.05))


async def test_read_of_the_body_is_bounded(upstream: Upstream, transport: Transport) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"a", length=2)
        await stall(exchange)

    url = await upstream.start(handler)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, post(url, read=0.05))


async def test_a_refused_connection(closed_port: int, transport: Transport) -> None:
    with pytest.raises(NotConnected):
        await fetch(transport, post(f"http://127.0.0.1:{closed_port}"))


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), UnicodeError("label too long")])
async def test_a_name_that_does_not_resolve(
    error: Exception, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(NotConnected):
        await fetch(transport, post("http://agenta.example"))


async def test_resolving_a_name_is_bounded(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> object:
        return await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(NotConnected):
        await fetch(transport, post("http://agenta.example", connect=0.05))


async def test_tls_with_a_ca_file(upstream: Upstream, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"safe")

    url = await upstream.start(handler, server_tls)
    transport = Transport(ca_file=ca_file)
    assert await fetch(transport, post(url)) == (200, b"safe")
    await transport.aclose()


async def test_tls_with_an_authority_that_is_not_trusted(
    upstream: Upstream, server_tls: ssl.SSLContext, transport: Transport
) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(), server_tls)
    with pytest.raises(NotConnected):
        await fetch(transport, post(url))
    assert upstream.exchanges == []


async def test_tls_with_a_server_that_speaks_none(upstream: Upstream, transport: Transport) -> None:
    url = await upstream.start(None)
    with pytest.raises(NotConnected):
        await fetch(transport, post(url.replace("http:", "https:"), connect=0.05))


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(OSError, match=r"(?i)certificate|pem"):
        Transport(ca_file=tmp_path / "ca.pem")
    with pytest.raises(OSError, match="No such file"):
        Transport(ca_file=tmp_path / "none.pem")


async def test_redirects_compression_and_cookies_are_left_alone(
    upstream: Upstream, other_upstream: Upstream, transport: Transport
) -> None:
    elsewhere = await other_upstream.start(lambda exchange: exchange.answer())
    packed = gzip.compress(b"text")

    async def handler(exchange: Exchange) -> None:
        headers = f"location: {elsewhere}\r\ncontent-encoding: gzip\r\nset-cookie: a=b; path=/\r\n"
        await exchange.answer(packed, status=307, headers=headers)

    url = await upstream.start(handler)
    for _ in range(2):
        response = await transport.handle_async_request(post(url.replace("127.0.0.1", "localhost")))
        assert response.status_code == 307
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == packed
        await response.aclose()
    assert other_upstream.connections == 0
    assert "cookie" not in upstream.exchanges[1].head.lower()
    assert "accept-encoding: identity" in upstream.exchanges[0].head.lower()


async def test_the_environment_names_no_proxy(
    upstream: Upstream, transport: Transport, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = await upstream.start(lambda exchange: exchange.answer())
    assert await fetch(transport, post(url)) == (200, b"{}")


async def test_http_by_a_proxy_with_credentials(upstream: Upstream) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(b"via"))
    transport = Transport(proxy=url.replace("://", "://user:pass@"))
    assert await fetch(transport, post("http://agenta.example/path")) == (200, b"via")
    head = upstream.exchanges[0].head
    assert head.startswith("POST http://agenta.example/path HTTP/1.1")
    assert f"proxy-authorization: basic {base64.b64encode(b'user:pass').decode()}".lower() in head.lower()
    await transport.aclose()


async def test_https_by_a_proxy_does_not_show_it_the_key(
    upstream: Upstream, other_upstream: Upstream, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(b"tunnelled"), server_tls)

    async def tunnel(exchange: Exchange) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        await exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(pump(exchange.reader, writer)),
                    asyncio.ensure_future(pump(reader, exchange.writer)),
                ]
            )
        finally:
            writer.close()

    proxy = await other_upstream.start(tunnel)
    transport = Transport(ca_file=ca_file, proxy=proxy.replace("://", "://user:pass@"))
    assert await fetch(transport, post(url)) == (200, b"tunnelled")
    assert other_upstream.exchanges[0].head.startswith(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1")
    assert "secret" not in other_upstream.exchanges[0].head
    await transport.aclose()
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(
    "handler", [close_before_answering, send_garbage, lambda exchange: exchange.answer(status=407)]
)
async def test_a_proxy_that_opens_no_tunnel(
    handler: Callable[[Exchange], Awaitable[None]], upstream: Upstream, closed_port: int
) -> None:
    transport = Transport(proxy=(await upstream.start(handler)).replace("://", "://user:hunter2@"))
    with pytest.raises(NotConnected) as caught:
        await fetch(transport, post(f"https://127.0.0.1:{closed_port}"))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    await transport.aclose()


async def test_a_proxy_that_never_answers(upstream: Upstream, closed_port: int) -> None:
    transport = Transport(proxy=await upstream.start(stall))
    with pytest.raises(NotConnected):
        await fetch(transport, post(f"https://127.0.0.1:{closed_port}", connect=0.05))
    await transport.aclose()


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy:3128",
        "socks5://user:hunter2@proxy",
        "http://",
        "http://user:hunter2@:x",
        "http://user:hunter2@h:99999",
        "http://user:hunter2@h:0",
        "http://user:hunter2@h\\x",
        "http://user:hunter2@my proxy:1",
        "http://user:hunter2@h..x",
        "http://user:hunter2@%zz",
        "http://user:hunter2@" + "a" * 300,
    ],
)
def test_a_proxy_that_is_none(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"Give one such as http://proxy.example:3128") as caught:
        Transport(proxy=proxy)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_closing_ends_calls_that_run_and_refuses_later_ones(upstream: Upstream) -> None:
    url = await upstream.start(stall)
    transport = Transport()
    call = asyncio.create_task(fetch(transport, post(url)))
    await upstream.arrived.wait()
    await transport.aclose()
    with pytest.raises(httpx.RemoteProtocolError):
        await call
    with pytest.raises(NotConnected):
        await fetch(transport, post(url))


async def test_closing_before_any_call() -> None:
    await Transport().aclose()
