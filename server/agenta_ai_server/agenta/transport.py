"""httpx's transport over aiohttp's connections.

httpx's own pool looks at every connection for every call, so its cost grows with the calls in flight. aiohttp's pool
doesn't, and its connector can record whether a request may have been sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import httpx

from agenta_ai_server.agenta.connections import Connector

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

MAX_LINE_BYTES = 256 * 1024
"""Bound of the status line and of each header."""
MAX_HEADERS = 1000

# Those of every request. A session keeps them, while httpx would normalize them anew for each one.
_HEADERS = {
    "accept": "application/json",
    # A small compressed body could expand to a huge one.
    "accept-encoding": "identity",
    "user-agent": "agenta-ai-server",
}
_CHUNK_BYTES = 256 * 1024


class Transport(httpx.AsyncBaseTransport):
    """Sends requests over as many connections as there are requests in flight.

    Unlike httpx's own transports, it raises aiohttp's errors, because their meaning depends on the whole exchange,
    including the body; see ``connections.py``.

    Belongs to the event loop of its first request.

    Args:
        tls: The authorities to trust.
        proxy: URL of an HTTP proxy.
        keep_alive: Whether a connection may serve one request after another.
        idle_seconds: How long an idle connection is kept.
        max_connection_seconds: How long a connection is used, plus or minus a fifth.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        proxy: str | None,
        keep_alive: bool,
        idle_seconds: float,
        max_connection_seconds: float,
    ) -> None:
        self._tls = tls
        self._proxy = proxy
        self._keep_alive = keep_alive
        self._idle_seconds = idle_seconds
        self._max_connection_seconds = max_connection_seconds
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response when its headers have arrived. Its body isn't decompressed."""
        if self._session is None:
            self._session = self._new_session()
        content = request.content
        in_chunks = len(content) > _CHUNK_BYTES
        if in_chunks:
            # Otherwise aiohttp would send it with an encoding of its own, which not every server reads.
            request.headers["content-length"] = str(len(content))
        response = await self._session.request(
            request.method,
            str(request.url),
            headers=request.headers,
            data=_chunks(content) if in_chunks else content or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(connect=request.extensions["timeout"]["connect"]),
        )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_ResponseBody(response))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _new_session(self) -> aiohttp.ClientSession:
        if self._keep_alive:
            connector = Connector(
                self._max_connection_seconds, limit=0, ssl=self._tls, keepalive_timeout=self._idle_seconds
            )
        else:
            connector = Connector(limit=0, ssl=self._tls, force_close=True)
        return aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )


class _ResponseBody(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_any()

    async def aclose(self) -> None:
        self._response.close()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    """Yield a long body in pieces, so that it doesn't hold the event loop."""
    for begin in range(0, len(content), _CHUNK_BYTES):
        yield content[begin : begin + _CHUNK_BYTES]
