"""The HTTP client for every request of this server: it bounds what a response may take, and says what was sent.

Requests, responses and errors are httpx's. They don't go through an ``httpx.AsyncClient``: what it adds, such as
cookies, redirects and settings from the environment, isn't wanted here.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import aiohttp
import httpx

from agenta_ai_server.agenta.connections import EXCHANGE, Exchange
from agenta_ai_server.agenta.transport import Transport
from agenta_ai_server.agenta.trust import tls_context
from agenta_ai_server.domain.errors import forget_frames
from agenta_ai_server.domain.http_url import check_http_url, check_proxy_url
from agenta_ai_server.domain.record import record
from agenta_ai_server.domain.values import has_more_values

if TYPE_CHECKING:
    from pathlib import Path

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_HEAD_BYTES = 256 * 1024
"""Bound of all that precedes a body: interim responses (RFC 9110, section 15.2) and headers."""
MAX_UNREAD_BYTES = 64 * 1024
"""A request of at most this size is taken to have been read by the server, even if it was refused."""

TransportError = httpx.TransportError
"""No response came. Packages that must not import httpx catch it by this name."""


@record
class HttpResponse:
    """A final response.

    Attributes:
        status: The HTTP status.
        headers: Looked up by name, whatever its case.
        body: As it came, compressed or not; ``None`` if it exceeds a bound. Empty if the connection broke within
            the body of anything but a 200: the status has said what failed.
    """

    status: int
    headers: httpx.Headers
    body: bytes | None

    def with_bounded_values(self) -> HttpResponse:
        """Return the response, its body ``None`` if it has more values as JSON than are worth parsing."""
        if self.body is None or not has_more_values(self.body.decode("latin-1")):
            return self
        return replace(self, body=None)


class HttpClient:
    """Sends requests over as many connections as there are requests in flight.

    Redirects aren't followed, cookies aren't kept, bodies aren't decompressed, and the environment is never consulted
    for proxies or certificates. Errors don't lead back to the library's own, which hold the request with its
    credentials.

    Belongs to the event loop of its first request.

    Args:
        url: Any URL of the server that it talks to; says whether TLS is needed.
        ca_file: PEM file of the authorities to trust, in place of the public ones.
        proxy: URL of an HTTP proxy, possibly with credentials.
        keep_alive: Whether a connection may serve one request after another. HTTP/1.1 can't tell a late second response
            from the response to the next request; with a connection for each request, nobody gets it.
        idle_seconds: How long an idle connection is kept.
        max_connection_seconds: How long a connection is used, plus or minus a fifth, so that a connection that is never
            idle follows DNS changes, too. It ends between two requests.

    Raises:
        ValueError: The proxy isn't the URL of an HTTP proxy.
        OSError: The file can't be read, or holds no certificate.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        proxy: str | None = None,
        keep_alive: bool = True,
        idle_seconds: float = 4.0,
        max_connection_seconds: float = 300.0,
    ) -> None:
        if proxy is not None:
            check_proxy_url(proxy)
        self._transport = Transport(
            tls_context(ca_file, *(check_http_url(each).scheme for each in (url, proxy) if each)),
            proxy=proxy,
            keep_alive=keep_alive,
            idle_seconds=idle_seconds,
            max_connection_seconds=max_connection_seconds,
        )
        self._closed = False

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        seconds: float,
        connect_seconds: float | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> HttpResponse:
        """Send one request, once, and return the response. Only an idempotent one may be sent again, by RFC 9110.

        Args:
            method: ``"GET"`` or ``"POST"``.
            url: Where to.
            headers: Besides those that every request has. Names in lowercase.
            content: The body.
            seconds: Bounds the whole exchange.
            connect_seconds: Bounds everything before there is a connection; ``seconds`` by default.
            max_body_bytes: Bound of the response's body.

        Raises:
            httpx.ConnectTimeout: There was no connection in time, and nothing was sent.
            TooManyOpenFiles: There is no connection, for a reason of this machine, and nothing was sent.
            httpx.ConnectError: There is no connection, and nothing was sent.
            httpx.ReadTimeout: The response didn't come in time. The request may have been sent.
            httpx.ReadError: The connection broke. The request may have been sent.
            httpx.RemoteProtocolError: What came isn't readable as HTTP. The request may have been sent.
            ValueError: A header holds the end of a line. Nothing was sent.

        A cancelled call closes its connection.
        """
        if self._closed:
            raise httpx.ConnectError("The client is closed.")
        request = _request(method, url, headers or {}, content, connect_seconds)
        exchange = Exchange(max_body_bytes + MAX_HEAD_BYTES, is_long=len(content) > MAX_UNREAD_BYTES)
        token = EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(request, exchange, max_body_bytes)
        # UnicodeError: a host name that can't be one.
        except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as error:
            kind, why = exchange.kind_of(error), _why(error)
            # The frames hold prompt and key.
            forget_frames(error)
        finally:
            EXCHANGE.reset(token)
            exchange.end()
        # Raised outside the handler, where the library's error would become its context, and without being assigned to
        # a variable, through which the frame would hold its own error.
        raise kind(why)

    async def aclose(self) -> None:
        """Close all connections. Requests in flight and later ones fail."""
        self._closed = True
        await self._transport.aclose()

    async def _exchange(self, request: httpx.Request, exchange: Exchange, max_body_bytes: int) -> HttpResponse:
        response = await self._transport.handle_async_request(request)
        # Every byte is a character in this encoding. By default, httpx would try several.
        response.headers.encoding = "iso-8859-1"
        try:
            body = await _read_body(response, max_body_bytes)
        except aiohttp.ClientError as error:
            if response.status_code == httpx.codes.OK or exchange.has_overflowed:
                raise
            forget_frames(error)
            return HttpResponse(response.status_code, response.headers, b"")
        request_was_read = response.is_success or not exchange.is_long
        exchange.is_reusable = request_was_read and body is not None and response.status_code >= httpx.codes.OK
        return HttpResponse(response.status_code, response.headers, body)


def _request(
    method: str, url: str, headers: dict[str, str], content: bytes, connect_seconds: float | None
) -> httpx.Request:
    # A value must not inject another header or request.
    if any("\r" in value or "\n" in value for value in headers.values()):
        raise ValueError("a header holds the end of a line")
    extensions = {"timeout": {"connect": connect_seconds}}
    # As a stream, because aiohttp adds the headers that httpx would add for ``content``.
    stream = httpx.ByteStream(content)
    request = httpx.Request(method, _parsed(url), headers=headers, stream=stream, extensions=extensions)
    request.read()
    # Otherwise httpx would detect the encoding.
    request.headers.encoding = "ascii"
    return request


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx.URL:
    # Parsing a URL takes as long as all other parts of making a request, and there are few URLs.
    return httpx.URL(url)


async def _read_body(response: httpx.Response, max_bytes: int) -> bytes | None:
    body = bytearray()
    is_read = False
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        # Not decompressed, because a small body could expand to a huge one.
        async for chunk in response.stream:
            body += chunk
            if len(body) > max_bytes:
                return None
        is_read = True
    finally:
        # A response that was read to its end is closed already.
        if not is_read:
            await response.aclose()
    return bytes(body)


def _why(error: BaseException) -> str:
    """Return the name of what happened, without quoting what was sent or received."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # What is wrong with it, in OpenSSL's words: it has expired, is for another name, or by an unknown authority.
        return f"{type(error).__name__}: {getattr(error.certificate_error, 'verify_message', '')}".rstrip(".: ")
    return type(error).__name__
