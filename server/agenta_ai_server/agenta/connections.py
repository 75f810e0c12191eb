"""Connections to an HTTP server that say what has become of a request: whether it may have been sent, and what came."""

from __future__ import annotations

import asyncio
import errno
import math
import random
import select
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx

if TYPE_CHECKING:
    from aiohttp.connector import Connection


class TooManyOpenFiles(httpx.ConnectError):
    """The connection failed because no more files can be opened. Nothing was sent."""


@dataclass(slots=True, eq=False)
class Exchange:
    """What the connection reports about one request.

    Attributes:
        max_bytes: The most bytes that may be received.
        is_long: Whether the request is so long that a server may refuse it unread, and take its rest for the next one.
        transport: The connection; ``None`` until there is one, and nothing has been sent.
        received: Bytes received so far.
        is_reusable: Whether the connection may serve another request.
        is_handed_over: Whether the connection serves another request already.
    """

    max_bytes: int
    is_long: bool = False
    transport: asyncio.Transport | None = None
    received: int = 0
    is_reusable: bool = False
    is_handed_over: bool = False

    @property
    def has_overflowed(self) -> bool:
        """Whether more than ``max_bytes`` were received."""
        return self.received > self.max_bytes

    def kind_of(self, error: Exception) -> type[httpx.TransportError]:
        """Return what failed, by aiohttp's error."""
        if self.transport is None:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                return TooManyOpenFiles
            return httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
        if isinstance(error, TimeoutError):
            return httpx.ReadTimeout
        is_unreadable = isinstance(error, aiohttp.ClientResponseError) or self.has_overflowed
        return httpx.RemoteProtocolError if is_unreadable else httpx.ReadError

    def hand_over(self) -> bool:
        """Leave the connection to another request, if it may serve one.

        aiohttp lends it again as soon as the response has arrived, which may not have been read yet.
        """
        self.is_handed_over = self.is_reusable or not self.is_long
        return self.is_handed_over

    def end(self) -> None:
        """Close the connection, unless it may serve another request."""
        if self.transport is not None and not self.is_reusable and not self.is_handed_over:
            # Not close(): what is still to be sent must not keep the connection open.
            self.transport.abort()


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")
"""The exchange that the next connection is for."""


class Connector(aiohttp.TCPConnector):
    """Passes the connection to the exchange, and watches that connection.

    Args:
        max_seconds: How long a connection is used, plus or minus a fifth.
        options: Those of ``aiohttp.TCPConnector``.
    """

    def __init__(self, max_seconds: float = math.inf, **options: Any) -> None:
        super().__init__(**options)
        self._max_seconds = max_seconds

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        while True:
            try:
                connection = await super().connect(*args, **kwargs)
            except BaseException:  # a time-out arrives as a cancellation
                # The name may lead to another address by now.
                self.clear_dns_cache()
                raise
            transport = connection.transport
            assert transport is not None
            watch = transport.get_protocol()
            if not isinstance(watch, _Watch):
                # Spread, so that connections that were opened together aren't all opened again together.
                watch = _Watch(transport, watch, time.monotonic() + self._max_seconds * random.uniform(0.8, 1.2))  # noqa: S311
                transport.set_protocol(watch)
            elif watch.is_unusable() or not watch.exchange.hand_over():
                connection.close()
                continue
            watch.connection = connection
            watch.exchange = exchange = EXCHANGE.get()
            exchange.transport = transport
            return connection


@dataclass(slots=True, eq=False)
class _Watch(asyncio.Protocol):
    """Passes on received data, and closes a connection that sends unrequested or too much data."""

    transport: asyncio.Transport
    inner: Any
    retire_at: float
    unread: select.poll = field(init=False)
    connection: Connection = field(init=False)
    exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.unread = select.poll()
        self.unread.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)

    def is_unusable(self) -> bool:
        """Return whether it must not serve another request.

        It is too old, or data or its end has arrived that the event loop hasn't read: the other side may have closed it
        while this process was frozen, and a request would be lost.
        """
        return time.monotonic() >= self.retire_at or bool(self.unread.poll(0))

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        exchange.received += len(data)
        if self.connection.closed or exchange.has_overflowed:
            self.transport.abort()
        else:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        result: bool | None = self.inner.eof_received()
        return result

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()
