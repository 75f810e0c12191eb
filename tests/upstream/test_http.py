from __future__ import annotations

import asyncio
import base64
import gzip
import os
import socket
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import pytest
from garbage import without_garbage_collection

from agenta_ai_server.agenta import connections as connections_module
from agenta_ai_server.agenta.http import MAX_BODY_BYTES, MAX_UNREAD_BYTES, HttpClient
from agenta_ai_server.agenta.transport import MAX_HEADERS, MAX_LINE_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from upstream.conftest import Exchange, Upstream


HEADERS = {"authorization": "ApiKey secret", "accept-encoding": "identity"}


class Target:
    """A client, and the URL that it posts to."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.client = HttpClient(url, **options)


Opened: TypeAlias = "Callable[..., Target]"


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Makes clients, and closes them."""
    targets: list[Target] = []

    def make(url: str, **options: Any) -> Target:
        targets.append(Target(url, **options))
        return targets[-1]

    yield make
    for target in targets:
        await target.client.aclose()


async def post(
    target: Target, body: bytes = b"hello", *, connect: float = 2.0, seconds: float = 20.0
) -> tuple[int, bytes | None]:
    answer = await target.client.send(
        "POST", target.url, headers=HEADERS, content=body, seconds=seconds, connect_seconds=connect
    )
    return answer.status, answer.body


async def test_sends_a_request_and_reads_the_answer(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"world", status=418)

    url = await upstream.start(handler)
    target = opened(url)
    assert await post(target) == (418, b"world")
    assert upstream.exchanges[0].body == b"hello"


async def test_a_request_beyond_a_mebibyte(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(str(len(exchange.body)).encode())

    url = await upstream.start(handler)
    target = opened(url)
    assert await post(target, b"x" * (3 << 20)) == (200, b"3145728")


async def test_one_connection_serves_one_call_after_the_other(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()

    url = await upstream.start(handler)
    target = opened(url)
    for _ in range(5):
        await post(target)
    assert upstream.connections == 1


async def test_as_many_connections_as_calls_in_flight(upstream: Upstream, opened: Opened) -> None:
    calls = 250
    all_there = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if len(upstream.exchanges) == calls:
            all_there.set()
        await all_there.wait()
        await exchange.answer(exchange.body)

    url = await upstream.start(handler)
    target = opened(url)
    answers = await asyncio.gather(*(post(target, str(n).encode(), connect=20.0) for n in range(calls)))
    assert [body for _, body in answers] == [str(n).encode() for n in range(calls)]


async def test_an_idle_connection_is_not_used_after_its_time(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()

    url = await upstream.start(handler)
    target = opened(url, idle_seconds=0.05)
    await post(target)
    await asyncio.wait_for(upstream.ended.wait(), 5)
    await post(target)
    assert upstream.connections == 2


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()
        exchange.writer.close()

    url = await upstream.start(handler)
    target = opened(url)
    for _ in range(3):
        assert (await post(target))[0] == 200
        await asyncio.sleep(0.02)
    assert upstream.connections == 3


async def test_nor_is_one_whose_end_the_event_loop_has_not_heard(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer()

    url = await upstream.start(handler)
    target = opened(url)
    await post(target)
    # As while this process stands still: the event loop doesn't come round before the next request.
    upstream.exchanges[0].writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    assert (await post(target))[0] == 200
    assert upstream.connections == 2


async def test_a_busy_connection_is_renewed_between_requests(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await exchange.answer()

    url = await upstream.start(handler)
    target = opened(url, max_connection_seconds=0.1)
    for _ in range(20):
        assert (await post(target))[0] == 200
    assert 1 < upstream.connections < 20


async def test_an_answer_that_nobody_asked_for_is_nobodys(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"asked for")
        await asyncio.sleep(0.05)
        await exchange.answer(b"not asked for")

    url = await upstream.start(handler)
    target = opened(url)
    assert (await post(target))[1] == b"asked for"
    await asyncio.sleep(0.15)
    assert (await post(target))[1] == b"asked for"
    assert upstream.connections == 2


async def test_a_connection_that_says_what_nobody_asked_for_is_closed_at_once(
    upstream: Upstream, opened: Opened
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"asked for")
        await asyncio.sleep(0.05)
        await exchange.answer(b"not asked for")

    await post(opened(await upstream.start(handler), idle_seconds=60))
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def test_without_keep_alive_no_second_response_reaches_another_request(
    upstream: Upstream, opened: Opened
) -> None:
    async def answer_twice(exchange: Exchange) -> None:
        await exchange.answer(exchange.body)
        await exchange.answer(b"late")

    target = opened(await upstream.start(answer_twice), keep_alive=False)
    asked = [str(number).encode() for number in range(50)]
    assert [(await post(target, each))[1] for each in asked] == asked
    assert upstream.connections == 50


@pytest.mark.parametrize(
    "unfinished", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["some", "none"]
)
async def test_nor_is_the_beginning_of_one(unfinished: bytes, upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nasked for" + unfinished)

    target = opened(await upstream.start(handler))
    assert [await post(target) for _ in range(3)] == [(200, b"asked for")] * 3
    assert upstream.connections == 3


async def test_what_comes_before_the_answer_is_none(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        await exchange.answer(b"final")

    target = opened(await upstream.start(handler))
    assert [await post(target) for _ in range(2)] == [(200, b"final")] * 2
    assert upstream.connections == 1


async def test_a_long_request_that_was_refused_may_not_have_been_read(opened: Opened) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        connections.append(writer)

    connections: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        target = opened(f"http://{host}:{port}")
        assert [await post(target, b"x" * (MAX_UNREAD_BYTES + 1)) for _ in range(2)] == [(413, b"")] * 2
        assert len(connections) == 2
        for writer in connections:
            writer.close()


async def test_what_speaks_first_is_not_asked_for_ever(opened: Opened) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()
        writer.close()

    connections: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(httpx.TransportError):
            await post(opened(f"http://{host}:{port}"))
        for writer in connections:
            await writer.wait_closed()
    assert len(connections) == 1


async def test_who_leaves_is_not_kept_by_a_server_that_does_not_read(opened: Opened) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened_before = open_files()
        target = opened(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(httpx.ReadTimeout):
            # More than the buffers of the system take.
            await post(target, b"x" * (32 << 20), seconds=1.0)
        await asyncio.sleep(0)
        assert open_files() <= opened_before


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("headers", [b"connection: upgrade\r\nupgrade: x\r\n\r\nx", b"\r\n"])
async def test_no_other_protocol_is_spoken(headers: bytes, upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\n" + headers)

    target = opened(await upstream.start(handler))
    assert [await post(target) for _ in range(2)] == [(101, b"")] * 2
    assert upstream.connections == 2


@pytest.mark.parametrize(("more", "expected"), [(0, MAX_BODY_BYTES), (1, None)])
async def test_a_body_is_read_up_to_its_bound(
    more: int, expected: int | None, upstream: Upstream, opened: Opened
) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(b"x" * (MAX_BODY_BYTES + more)))
    _, body = await post(opened(url))
    assert (body and len(body)) == expected


async def test_a_failure_needs_no_whole_body(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b'{"data"', status=503, length=100)
        exchange.writer.close()

    assert await post(opened(await upstream.start(handler))) == (503, b"")


@pytest.mark.parametrize("value", ["a\r\nx: b", "a\nx: b", "a\rb"])
async def test_a_header_stays_one(value: str, upstream: Upstream, opened: Opened) -> None:
    url = await upstream.start(lambda exchange: exchange.answer())
    target = opened(url)
    with pytest.raises(ValueError, match="end of a line"):
        await target.client.send("POST", target.url, headers={"tracestate": value}, seconds=2.0)
    assert upstream.connections == 0


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
    await exchange.send(b"HTTP/1.1 200 OK\r\nx: " + b"x" * (MAX_LINE_BYTES + 1) + b"\r\ncontent-length: 0\r\n\r\n")


async def send_too_many_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MAX_HEADERS + 2))
    await stall(exchange)


async def send_interim_responses_for_ever(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


BROKEN = [
    close_before_answering,
    reset_before_answering,
    close_within_the_head,
    close_within_the_body,
    reset_within_the_body,
    close_within_a_chunk,
]
UNREADABLE = [
    send_a_bad_chunk_size,
    send_garbage,
    send_a_bad_length,
    send_two_lengths,
    send_a_huge_header,
    send_too_many_headers,
    send_interim_responses_for_ever,
]


@pytest.mark.parametrize(
    ("handler", "kind"),
    [(handler, httpx.ReadError) for handler in BROKEN]
    + [(handler, httpx.RemoteProtocolError) for handler in UNREADABLE],
)
async def test_what_fails_after_sending_is_no_connect_error(
    handler: Callable[[Exchange], Awaitable[None]], kind: type[Exception], upstream: Upstream, opened: Opened
) -> None:
    url = await upstream.start(handler)
    target = opened(url)
    with pytest.raises(httpx.TransportError) as caught:
        await post(target, seconds=100)
    assert type(caught.value) is kind
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("status", [200, 401, 429, 503])
@pytest.mark.parametrize(
    "head",
    [
        b"x\r\n" + b"set-cookie: c=" + b"x" * 9_000 + b"\r\n",
        b"x\r\n" + b"".join(b"set-cookie: c%d=%b\r\n" % (number, b"x" * 3_000) for number in range(60)),
        b"x" * 100_000 + b"\r\n",
        b"x\r\n" + b"x: y\r\n" * 500,
    ],
    ids=["a long header", "many cookies", "a long reason phrase", "many headers"],
)
async def test_a_large_head_does_not_lose_the_status(
    head: bytes, status: int, upstream: Upstream, opened: Opened
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 %d %bcontent-length: 2\r\n\r\n{}" % (status, head))

    assert await post(opened(await upstream.start(handler))) == (status, b"{}")


@pytest.mark.parametrize("handler", [close_before_answering, close_within_the_body, reset_within_the_body])
async def test_nothing_of_a_failed_call_waits_for_a_collection(
    handler: Callable[[Exchange], Awaitable[None]], upstream: Upstream, opened: Opened
) -> None:
    class Prompt(bytes):
        def __del__(self) -> None:
            ended.append(True)

    ended: list[bool] = []
    target = opened(await upstream.start(handler))
    with without_garbage_collection():
        with suppress(httpx.ReadError):
            await post(target, Prompt(b"hello"))
        assert ended


async def test_no_call_is_sent_again_when_a_used_connection_breaks(upstream: Upstream, opened: Opened) -> None:
    async def handler(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.answer()
        else:
            exchange.writer.close()

    url = await upstream.start(handler)
    target = opened(url)
    await post(target)
    with pytest.raises(httpx.ReadError):
        await post(target)
    assert len(upstream.exchanges) == 2


async def stall_within_the_body(exchange: Exchange) -> None:
    await exchange.answer(b"a", length=2)
    await stall(exchange)


@pytest.mark.parametrize("handler", [stall, stall_within_the_body])
async def test_read_is_bounded(
    handler: Callable[[Exchange], Awaitable[None]], upstream: Upstream, opened: Opened
) -> None:
    async def second_time(exchange: Exchange) -> None:
        await (exchange.answer() if len(upstream.exchanges) == 1 else handler(exchange))

    target = opened(await upstream.start(second_time))
    # The time isn't for connecting as well.
    assert await post(target) == (200, b"{}")
    with pytest.raises(httpx.ReadTimeout):
        await post(target, seconds=0.05)
    assert upstream.connections == 1


async def test_a_refused_connection(closed_port: int, opened: Opened) -> None:
    with pytest.raises(httpx.ConnectError):
        await post(opened(f"http://127.0.0.1:{closed_port}"))


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), UnicodeError("label too long")])
async def test_a_name_that_does_not_resolve(error: Exception, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(httpx.ConnectError):
        await post(opened("http://agenta.example"))


async def test_a_name_is_resolved_again_after_a_failed_connection(
    upstream: Upstream, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(b"here"))
    addresses = ["127.0.0.2", "127.0.0.1"]

    async def getaddrinfo(host: str, port: int, **_: object) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (addresses.pop(0), port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    target = opened(url.replace("127.0.0.1", "agenta.example"))
    with pytest.raises(httpx.ConnectError):
        await post(target)
    assert await post(target) == (200, b"here")


async def test_resolving_a_name_is_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> object:
        return await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(httpx.ConnectTimeout):
        await post(opened("http://agenta.example"), connect=0.05)


async def test_tls_with_a_ca_file(
    upstream: Upstream, server_tls: ssl.SSLContext, ca_file: Path, opened: Opened
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"safe")

    url = await upstream.start(handler, server_tls)
    target = opened(url, ca_file=ca_file)
    assert await post(target) == (200, b"safe")


async def test_tls_with_an_authority_that_is_not_trusted(
    upstream: Upstream, server_tls: ssl.SSLContext, opened: Opened
) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(), server_tls)
    target = opened(url)
    with pytest.raises(httpx.ConnectError, match="Certificate"):
        await post(target)
    assert upstream.exchanges == []


async def test_tls_with_a_server_that_speaks_none(upstream: Upstream, opened: Opened) -> None:
    url = await upstream.start(None)
    with pytest.raises(httpx.ConnectTimeout):
        await post(opened(url.replace("http:", "https:")), connect=0.05)


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(OSError, match=r"(?i)certificate|pem"):
        Target("http://agenta.example", ca_file=tmp_path / "ca.pem")
    with pytest.raises(OSError, match="No such file"):
        Target("http://agenta.example", ca_file=tmp_path / "none.pem")


async def test_redirects_compression_and_cookies_are_left_alone(
    upstream: Upstream, other_upstream: Upstream, opened: Opened
) -> None:
    elsewhere = await other_upstream.start(lambda exchange: exchange.answer())
    packed = gzip.compress(b"text")

    async def handler(exchange: Exchange) -> None:
        headers = f"location: {elsewhere}\r\ncontent-encoding: gzip\r\nset-cookie: a=b; path=/\r\n"
        await exchange.answer(packed, status=307, headers=headers)

    url = await upstream.start(handler)
    target = opened(url.replace("127.0.0.1", "localhost"))
    for _ in range(2):
        assert await post(target) == (307, packed)
    assert other_upstream.connections == 0
    assert "cookie" not in upstream.exchanges[1].head.lower()
    assert "accept-encoding: identity" in upstream.exchanges[0].head.lower()


async def test_the_environment_names_no_proxy(
    upstream: Upstream, opened: Opened, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = await upstream.start(lambda exchange: exchange.answer())
    target = opened(url)
    assert await post(target) == (200, b"{}")


@pytest.mark.parametrize(
    ("written", "shown"),
    [("user:pass", b"user:pass"), ("user", b"user:"), (":pass", b":pass"), ("a%40b:%25", b"a@b:%")],
)
async def test_http_by_a_proxy_with_credentials(written: str, shown: bytes, upstream: Upstream, opened: Opened) -> None:
    url = await upstream.start(lambda exchange: exchange.answer(b"via"))
    target = opened("http://agenta.example/path", proxy=url.replace("://", f"://{written}@"))
    assert await post(target) == (200, b"via")
    head = upstream.exchanges[0].head
    assert head.startswith("POST http://agenta.example/path HTTP/1.1")
    assert f"proxy-authorization: basic {base64.b64encode(shown).decode()}".lower() in head.lower()


async def test_https_by_a_proxy_does_not_show_it_the_key(
    upstream: Upstream, other_upstream: Upstream, server_tls: ssl.SSLContext, ca_file: Path, opened: Opened
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
    target = opened(url, ca_file=ca_file, proxy=proxy.replace("://", "://user:pass@"))
    assert await post(target) == (200, b"tunnelled")
    assert other_upstream.exchanges[0].head.startswith(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1")
    assert "secret" not in other_upstream.exchanges[0].head
    await target.client.aclose()
    await asyncio.wait_for(upstream.ended.wait(), 5)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(
    "handler", [close_before_answering, send_garbage, lambda exchange: exchange.answer(status=407)]
)
async def test_a_proxy_that_opens_no_tunnel(
    handler: Callable[[Exchange], Awaitable[None]], upstream: Upstream, closed_port: int, opened: Opened
) -> None:
    proxy = (await upstream.start(handler)).replace("://", "://user:hunter2@")
    with pytest.raises(httpx.ConnectError) as caught:
        await post(opened(f"https://127.0.0.1:{closed_port}", proxy=proxy))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_proxy_that_never_answers(upstream: Upstream, closed_port: int, opened: Opened) -> None:
    proxy = await upstream.start(stall)
    with pytest.raises(httpx.ConnectTimeout):
        await post(opened(f"https://127.0.0.1:{closed_port}", proxy=proxy), connect=0.05)


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
        "http://us%3Aer:hunter2@proxy:3128",
        "http://user:hunter2%E2%82%AC@proxy:3128",
        "http://user:hunter2@" + "a" * 300,
    ],
)
def test_a_proxy_that_is_none(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"Give one such as http://proxy.example:3128") as caught:
        Target("http://agenta.example", proxy=proxy)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_closing_ends_calls_that_run_and_refuses_later_ones(upstream: Upstream, opened: Opened) -> None:
    url = await upstream.start(stall)
    target = opened(url)
    call = asyncio.create_task(post(target))
    await upstream.arrived.wait()
    await target.client.aclose()
    with pytest.raises(httpx.ReadError):
        await call
    with pytest.raises(httpx.ConnectError):
        await post(target)


async def test_closing_before_any_call() -> None:
    await Target("http://agenta.example").client.aclose()


@pytest.mark.parametrize(
    ("size", "cancelled", "connections"),
    [(MAX_UNREAD_BYTES + 1, False, 2), (MAX_UNREAD_BYTES + 1, True, 2), (100, False, 1), (100, True, 1)],
)
async def test_a_connection_that_is_lent_before_its_response_has_been_read(
    size: int, cancelled: bool, connections: int, upstream: Upstream, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.body == b"second":
            await asyncio.sleep(0.05)
            await exchange.answer(b"second")
        else:
            await exchange.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n")
            await asyncio.sleep(0.05)
            await exchange.send(b"{}")

    target = opened(await upstream.start(handler))
    second_may_begin = asyncio.get_running_loop().create_future()
    data_received = connections_module._Watch.data_received

    # In the turn of the loop in which the first response ends, the second request comes before the first one's task.
    def begin_second(watch: Any, data: bytes) -> None:
        if data == b"{}":
            second_may_begin.set_result(None)
            if cancelled:
                first.cancel()
        data_received(watch, data)

    async def begin() -> tuple[int, bytes | None]:
        await second_may_begin
        return await post(target, b"second")

    monkeypatch.setattr(connections_module._Watch, "data_received", begin_second)
    first, second = asyncio.create_task(post(target, bytes(size))), asyncio.create_task(begin())
    assert await second == (200, b"second")
    if not cancelled:
        assert await first == (400, b"{}")
    assert upstream.connections == connections
