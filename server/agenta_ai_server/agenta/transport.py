"""HTTP for many calls at once.

httpx's own pool looks at each connection for each call, so that its cost grows with the calls in flight. aiohttp's does
not. Its client, though, makes a request, a writer, a task and a response of each call, which is a sixth of all that a
call costs this service. Here the request is prepared once, and its connections are spoken on directly.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from aiohttp.connector import Connection
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

Headers: TypeAlias = "Iterable[tuple[bytes, bytes]]"

MAX_BODY_BYTES = 2 * 1024 * 1024
# A request that is no longer is taken to have been read, also by a server that refuses it.
MAX_UNREAD_BYTES = 64 * 1024
# Answers before the final one: RFC 9110, section 15.2.
MAX_INTERIM = 20
# Connections that a call gives up one after the other. Even a new one may hold bytes that nobody asked for.
MAX_UNCLEAN = 10
# Names and addresses, as they travel: letters, digits, dots, hyphens, and the colons of IPv6.
HOST = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?")


class NotConnected(httpx.ConnectError):
    """No connection was made, so nothing was sent."""


class ConnectTimeout(NotConnected):
    """No connection was made within the time given."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: Of HTTP.
        headers: By their names, in whatever case.
        body: As it came, compressed or not; ``None`` if it has more than 2 MiB. Empty if the connection broke within
            that of a failure: its status has said what failed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Transport:
    """Posts to one URL, over as many connections as there are calls in flight.

    Redirects aren't followed, and cookies not kept. No error leads back to aiohttp's own, for those hold the request's
    headers, credentials and all.

    Belongs to the event loop of its first request.

    Args:
        url: As :func:`http_url` takes it.
        headers: Names and values that each request carries, besides ``host`` and ``content-length``; none with an end
            of a line.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. The environment is never asked for one.
        idle_seconds: How long a connection without a call may serve the next one.

    Raises:
        ValueError: The proxy is no URL of an HTTP proxy, or a header holds an end of a line.
        OSError: The file can't be read, or holds no certificate.
    """

    def __init__(
        self,
        url: str,
        headers: Headers = (),
        *,
        ca_file: Path | None = None,
        proxy: str | None = None,
        idle_seconds: float = 4.0,
    ) -> None:
        self._url = yarl.URL(url, encoded=True)
        self._proxy = None if proxy is None else yarl.URL(checked_proxy(proxy))
        self._tls = _tls(ca_file, self._url, self._proxy)
        self._idle_seconds = idle_seconds
        self._begin = b"".join((_begin(self._url, self._proxy), *_lines(headers)))
        self._connector: _Connector | None = None

    async def post(self, headers: Headers, body: bytes, *, connect_seconds: float) -> Answer:
        """Send the ``body`` and return the answer.

        Args:
            headers: What this request carries besides.
            body: The content.
            connect_seconds: Bounds all that happens before there is a connection. What comes after has no bound here.

        Raises:
            NotConnected: There is no connection, and nothing was sent.
            httpx.RemoteProtocolError: The connection broke, or what came is no HTTP.
            ValueError: A header holds an end of a line. Nothing was sent.
        """
        head = b"".join((self._begin, *_lines(headers), b"content-length: %d\r\n\r\n" % len(body)))
        connection = await self._pool().acquire(connect_seconds)
        try:
            return await _exchange(connection, head, body)
        except (aiohttp.ClientError, HttpProcessingError) as error:
            why = type(error).__name__
            # The answer holds the error, which would hold these frames, prompt and key: until garbage is looked for.
            error.__traceback__ = None
        finally:
            if connection.protocol is not None:
                # The answer wasn't read to its end. What is still to be sent mustn't keep the connection open.
                connection.protocol.abort()
                connection.close()
        # Not from within, where aiohttp's error would become its context.
        raise httpx.RemoteProtocolError(why)

    async def aclose(self) -> None:
        """Close all connections. Later requests fail, and those that run; one that reads a body may by its time-out."""
        await self._pool().close()

    def _pool(self) -> _Connector:
        if self._connector is None:
            self._connector = _Connector(self._url, self._proxy, self._tls, self._idle_seconds)
        return self._connector


def _tls(ca_file: Path | None, url: yarl.URL, proxy: yarl.URL | None) -> ssl.SSLContext | bool:
    if ca_file:
        return ssl.create_default_context(cafile=ca_file)
    if "https" in (url.scheme, proxy and proxy.scheme):
        return httpx.create_ssl_context(trust_env=False)
    # Nothing here needs the public authorities, which take two megabytes.
    return True


def _begin(url: yarl.URL, proxy: yarl.URL | None) -> bytes:
    """Return what each request begins with."""
    target = url.raw_path_qs
    lines = [f"host: {url.raw_authority}"]
    if proxy and url.scheme == "http":
        target = str(url)
        if proxy.user or proxy.password:
            lines.append(f"proxy-authorization: {aiohttp.encode_basic_auth(proxy.user or '', proxy.password or '')}")
    return "".join(f"{line}\r\n" for line in (f"POST {target} HTTP/1.1", *lines)).encode("ascii")


def _lines(headers: Headers) -> list[bytes]:
    lines = [b"%b: %b\r\n" % header for header in headers]
    # What stands in a value must not become a header of its own, nor a request.
    if any(line.count(b"\n") + line.count(b"\r") > 2 for line in lines):
        raise ValueError("a header holds the end of a line")
    return lines


class _Connector(aiohttp.TCPConnector):
    """Marks every error of connecting: by their classes alone they can't be told from those of a connection in use."""

    def __init__(self, url: yarl.URL, proxy: yarl.URL | None, tls: ssl.SSLContext | bool, idle_seconds: float) -> None:
        super().__init__(limit=0, ssl=tls, keepalive_timeout=idle_seconds)
        self._request = aiohttp.ClientRequest("POST", url, loop=self._loop, proxy=proxy)

    async def acquire(self, seconds: float) -> Connection:
        if self.closed:
            raise NotConnected("The transport is closed.")
        timeout = aiohttp.ClientTimeout(connect=seconds)
        try:
            for _ in range(MAX_UNCLEAN):
                connection = await self.connect(self._request, [], timeout)
                if connection.protocol is not None and not connection.protocol.should_close:
                    return connection
                # Bytes that nobody asked for came while it was idle. They must not become this call's answer.
                connection.close()
            kind, why = NotConnected, "What listens there speaks before it is asked."
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # the last of names that can't be one
            kind, why = ConnectTimeout if isinstance(error, TimeoutError) else NotConnected, type(error).__name__
        raise kind(why)


async def _exchange(connection: Connection, head: bytes, body: bytes) -> Answer:
    protocol, transport = connection.protocol, connection.transport
    assert protocol is not None
    assert transport is not None
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    transport.writelines((head, body))
    message, payload = await protocol.read()
    for _ in range(MAX_INTERIM):
        if message.code >= httpx.codes.OK or message.code == httpx.codes.SWITCHING_PROTOCOLS:
            break
        message, payload = await protocol.read()
    answer = Answer(message.code, message.headers, await _read(message, payload))
    if payload.is_eof() and _has_taken(message.code, body):
        connection.release()
    return answer


def _has_taken(status: int, body: bytes) -> bool:
    """Say whether the other side has read the request. Who refuses a long one may not, and then reads no other."""
    return status == httpx.codes.OK or (status > httpx.codes.OK and len(body) <= MAX_UNREAD_BYTES)


async def _read(message: RawResponseMessage, payload: StreamReader) -> bytes | None:
    body = bytearray()
    try:
        while chunk := await payload.readany():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return None
    except aiohttp.ClientError:
        if message.code == httpx.codes.OK:
            raise
        body.clear()
    return bytes(body)


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
        _check_credentials(yarl.URL(proxy))
    except ValueError as error:
        raise ValueError(f"The proxy {error}. Give one such as http://proxy.example:3128.") from None
    return proxy


def _check_credentials(proxy: yarl.URL) -> None:
    user, password = proxy.user or "", proxy.password or ""
    if ":" in user or not (user + password).isascii():
        raise ValueError("must have a user without a colon, and no credentials but of ASCII")
