"""HTTP for many calls at once.

httpx's own pool looks at each connection for each call, so that its cost grows with the calls in flight. aiohttp's does
not, and here it is put under httpx's interface.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from io import BytesIO
from typing import TYPE_CHECKING, NoReturn, cast

import aiohttp
import httpx
import yarl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


# Names and addresses, as they travel: letters, digits, dots, hyphens, and the colons of IPv6.
HOST = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?")


class NotConnected(httpx.ConnectError):
    """No connection was made, so nothing was sent."""


class ConnectTimeout(NotConnected):
    """No connection was made within the time given."""


class Transport(httpx.AsyncBaseTransport):
    """Sends httpx's requests over aiohttp, over as many connections as there are calls in flight.

    A request's ``timeout`` extension counts in seconds: ``connect`` bounds all that happens before there is a
    connection, ``read`` each wait for bytes. Redirects aren't followed, answers not decompressed, cookies not kept.

    No error leads back to aiohttp's own, for those hold the request's headers, credentials and all.

    Belongs to the event loop of its first request.

    Args:
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. The environment is never asked for one.
        idle_seconds: How long a connection without a call may serve the next one.

    Raises:
        ValueError: The proxy is no URL of an HTTP proxy.
        OSError: The file can't be read, or holds no certificate.
    """

    def __init__(self, *, ca_file: Path | None = None, proxy: str | None = None, idle_seconds: float = 4.0) -> None:
        self._proxy = None if proxy is None else checked_proxy(proxy)
        self._idle_seconds = idle_seconds
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context(trust_env=False)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, whose content is bytes and whose headers are ASCII, and return the answer's head.

        The body is read from the response's stream.

        Raises:
            NotConnected: There is no connection, and nothing was sent.
            httpx.ReadTimeout: No bytes came for the time given.
            httpx.RemoteProtocolError: The connection broke, or what came is no HTTP.
        """
        session = self._session = self._session or self._open_session()
        if session.closed:
            raise NotConnected("The transport is closed.")
        bounds = request.extensions["timeout"]
        try:
            answer = await session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                data=_data(b"".join(cast("httpx.SyncByteStream", request.stream))),
                # Not by httpx's own names for them: decoding each anew takes longer than sending the request.
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                timeout=aiohttp.ClientTimeout(sock_connect=bounds["connect"], sock_read=bounds["read"]),
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            _raise(error)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer))

    async def aclose(self) -> None:
        """Close all connections. Requests that run fail."""
        self._session = self._session or self._open_session()
        await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = _Connector(limit=0, ssl=self._tls, keepalive_timeout=self._idle_seconds)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy, auto_decompress=False
        )


def _data(content: bytes) -> bytes | BytesIO:
    # aiohttp warns of bytes beyond a mebibyte, because it would hand them over at once.
    return BytesIO(content) if len(content) > 1 << 20 else content


class _Connector(aiohttp.TCPConnector):
    """Marks every error of connecting: by their classes alone they can't be told from those of a connection in use."""

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        try:
            # aiohttp's own bound leaves out resolving the name and a proxy's answer.
            async with asyncio.timeout(timeout.sock_connect):
                connection = await super().connect(req, traces, timeout)
                while connection.protocol and connection.protocol.should_close:
                    # Bytes that nobody asked for came while it was idle. They must not become this call's answer.
                    connection.close()
                    connection = await super().connect(req, traces, timeout)
                return connection
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # the last of names that can't be one
            kind = ConnectTimeout if isinstance(error, TimeoutError) else NotConnected
            raise kind(type(error).__name__) from None


class _Body(httpx.AsyncByteStream):
    """An answer's body whose errors are httpx's."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._answer.content.readany():
                yield chunk
        except aiohttp.ClientError as error:
            _raise(error)

    async def aclose(self) -> None:
        # What has been read to its end has given its connection back already; any other can't be used again.
        self._answer.close()


def _raise(error: aiohttp.ClientError) -> NoReturn:
    """Raise httpx's error for one of aiohttp's after connecting."""
    if isinstance(error, aiohttp.InvalidURL):
        raise NotConnected(type(error).__name__) from None
    kind = httpx.ReadTimeout if isinstance(error, aiohttp.SocketTimeoutError) else httpx.RemoteProtocolError
    raise kind(type(error).__name__) from None


def http_url(url: str) -> httpx.URL:
    """Return the URL, if it is one that aiohttp, too, can send a request to.

    Raises:
        ValueError: It isn't. The sentence doesn't repeat it, because it may hold a password.
    """
    try:
        parsed = httpx.URL(url)
        port = yarl.URL(url).explicit_port
    except (httpx.InvalidURL, ValueError):
        raise ValueError("is no URL") from None
    if parsed.scheme not in ("http", "https") or not HOST.fullmatch(parsed.raw_host.decode("ascii")):
        raise ValueError("must have the scheme http or https, and a host")
    if len(url.split()) != 1 or port == 0:
        raise ValueError("must have no blanks, and a port from 1 to 65535 if any")
    return parsed


def checked_proxy(proxy: str) -> str:
    """Return the URL if it is one of an HTTP proxy.

    Raises:
        ValueError: It isn't. The sentence doesn't repeat it, because it may hold a password.
    """
    try:
        http_url(proxy)
    except ValueError as error:
        raise ValueError(f"The proxy {error}. Give one such as http://proxy.example:3128.") from None
    return proxy
