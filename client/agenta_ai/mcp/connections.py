"""Closes connections of the HTTP endpoint that are too many, send no requests, or don't read their answers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from agenta_ai.mcp.shares import Shares

if TYPE_CHECKING:
    import asyncio
    import ssl

# Connections at the same time, those included that haven't finished their TLS handshake.
MAX_CONNECTIONS = 1000
# Connections that asyncio accepts at once. It may do so three times before the first of them is refused.
BACKLOG = 64
# File descriptors that are needed for other things than connections.
OTHER_FILES = 64
# Seconds in which a new connection must finish its TLS handshake, and then those in which it must send the head of a
# request.
HEAD_SECONDS = 10.0
# Seconds for which a connection is kept between two requests; twice as long, if the next one arrives slowly.
KEEP_ALIVE_SECONDS = 75
# Seconds in which an answer must be read. The largest ones have some megabytes.
UNREAD_SECONDS = 60.0
# Bytes of answers that nobody has read yet, all together, and those of one caller.
MAX_UNREAD = 256 << 20
MAX_UNREAD_OF_CALLER = 32 << 20


def max_connections() -> int:
    """Return how many connections there may be: fewer than the process may open files.

    Where none is left, asyncio logs thousands of errors a second.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files < 0 else max(min(MAX_CONNECTIONS, files - 3 * BACKLOG - OTHER_FILES), 1)


class Connection(H11Protocol):
    """One connection. H11 limits the size of headers, which the library's other parser doesn't.

    It begins TLS itself: otherwise the library would hear of a connection only after its handshake, and couldn't limit
    handshakes.

    Args:
        tls: With the certificate and its key; ``None`` without TLS.
        most: How many connections there may be.
        arguments: Those of the library.
    """

    # Of all connections.
    unread = Shares(MAX_UNREAD, MAX_UNREAD_OF_CALLER)
    _looking: asyncio.TimerHandle | None = None
    _waiting: asyncio.Handle | None = None
    # Whose share this connection's answer takes, and how much of it.
    _unread = ("", 0)

    def __init__(self, *, tls: ssl.SSLContext | None = None, most: int = MAX_CONNECTIONS, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tls = tls
        self._most = most
        self._early = b""
        self._has_begun = False

    def connection_made(self, transport: Any) -> None:
        """Begin TLS or requests, or close the connection if there are too many."""
        if len(self.connections) >= self._most:
            transport.abort()
            return
        # The library does so, too, but only after the handshake.
        self.connections.add(self)
        self.transport = transport
        if self._tls is None:
            self._begin(transport)
            return
        # Nothing may be read before the handshake begins, which is when the task does.
        transport.pause_reading()
        self._handshake = self.loop.create_task(self._encrypt(transport, self._tls))

    async def _encrypt(self, transport: Any, tls: ssl.SSLContext) -> None:
        try:
            encrypted = await self.loop.start_tls(
                transport,
                self,
                tls,
                server_side=True,
                ssl_handshake_timeout=HEAD_SECONDS,
                ssl_shutdown_timeout=HEAD_SECONDS,
            )
        except OSError as error:
            encrypted = None
            # Its frames refer to it and to the handshake, whose buffers have 256 KiB: until there is enough garbage to
            # collect, a flood of handshakes would take a gigabyte.
            error.__traceback__ = None
        # It may also have been closed from this side.
        if encrypted is None or transport.is_closing():
            self.connections.discard(self)
            transport.abort()
        else:
            self._begin(encrypted)

    def _begin(self, transport: Any) -> None:
        """Start checking whether requests arrive."""
        self._has_begun = True
        super().connection_made(transport)
        self._look_in(HEAD_SECONDS)
        early, self._early = self._early, b""
        if early:
            super().data_received(early)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived. With the end of the handshake, a request may come before the task knows of it."""
        if not self._has_begun:
            self._early += data
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop checking."""
        self.connections.discard(self)
        if not self._has_begun:  # refused, or lost during the handshake
            return
        if self._looking:
            self._looking.cancel()
        self._has_read()
        # Told of an error, the library lets the time-out of idle connections run, which keeps this one in memory.
        super().connection_lost(None)

    def pause_writing(self) -> None:
        """Count a response that the client doesn't read at once, and close the connection if there are too many."""
        super().pause_writing()
        user: Any = self.cycle.scope.get("user") if self.cycle else None
        holder, size = user.access_token.subject if user else "", self.transport.get_write_buffer_size()
        if self.unread.take(holder, size):
            self._unread = (holder, size)
            self._waiting = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)
        else:
            self._waiting = self.loop.call_soon(self.transport.abort)

    def resume_writing(self) -> None:
        """Stop counting a response that has been read."""
        self._has_read()
        super().resume_writing()

    def _has_read(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
        self.unread.give_back(*self._unread)
        self._unread = ("", 0)

    def _look_in(self, seconds: float) -> None:
        self._looking = self.loop.call_later(seconds, self._look, self.cycle)

    def _look(self, last: object) -> None:
        """Close the connection if no request is running and none has arrived since the last check."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        else:
            self._look_in(KEEP_ALIVE_SECONDS)
