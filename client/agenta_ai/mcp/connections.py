"""Connections of the HTTP endpoint, within limits on their number, their work and their memory."""

from __future__ import annotations

import re
import sys
from asyncio import sslproto
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from agenta_ai.mcp.shares import Shares
from agenta_ai.mcp.turns import Turns

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
# Seconds in which the rest of a request must arrive that has been answered already.
LINGER_SECONDS = 10.0
# Lines that are parsed at once. What the parser does takes as long for each header and each chunk, however short.
LINES = 32
# Bytes and lines of a head, and those of a body's trailer.
MAX_HEAD_BYTES = 1 << 16
MAX_HEAD_LINES = 4 * LINES
# Seconds in which an answer must be read. The largest ones have some megabytes.
UNREAD_SECONDS = 60.0
# Unread bytes from which on an answer counts, with TLS, and the seconds between looks at them: at first, and at last.
UNREAD_BYTES = 1 << 16
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.02, 1.0
# Bytes of answers that nobody has read yet, all together, and those of one caller.
MAX_UNREAD = 256 << 20
MAX_UNREAD_OF_CALLER = 32 << 20
# Bytes that are read at once with TLS. For each connection, asyncio and OpenSSL keep two buffers of that size or more;
# asyncio's own choice is 256 KiB.
TLS_READ_BYTES = 1 << 16
sslproto.SSLProtocol.max_size = TLS_READ_BYTES


def max_connections() -> int:
    """Return how many connections there may be: fewer than the process may open files. Raise that limit if possible.

    Where none is left, asyncio logs thousands of errors a second.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = 3 * BACKLOG + OTHER_FILES
    wanted = MAX_CONNECTIONS + others
    if 0 <= soft < wanted:
        soft = max(soft, wanted if hard < 0 else min(wanted, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft < 0 else max(min(MAX_CONNECTIONS, soft - others), 1)


# So many lines, or fewer if an empty one ends a head.
_LINES = re.compile(rb"(?:[^\r\n][^\n]*+\n){0,%d}[^\n]*+\n" % (LINES - 1))


class _Flow(FlowControl):
    """Reads no more while the connection waits for its turn, whatever the library asks for."""

    _is_held = False

    def hold(self) -> None:
        """Stop reading."""
        self._is_held = True
        self._transport.pause_reading()

    def release(self) -> None:
        """Read on, unless the library doesn't want to."""
        self._is_held = False
        if not self.read_paused:
            self._transport.resume_reading()

    def resume_reading(self) -> None:
        if self._is_held:
            self.read_paused = False
        else:
            super().resume_reading()


class Connection(H11Protocol):
    """One connection. H11 limits the size of headers, which the library's other parser doesn't.

    It begins TLS itself: otherwise the library would hear of a connection only after its handshake, and couldn't limit
    handshakes.

    Args:
        tls: With the certificate and its key; ``None`` without TLS.
        most: How many connections there may be.
        turns: Those that all connections take.
        arguments: Those of the library.
    """

    # Of all connections.
    unread = Shares(MAX_UNREAD, MAX_UNREAD_OF_CALLER)
    flow: _Flow
    _looking: asyncio.TimerHandle | None = None
    _waiting: asyncio.Handle | None = None
    _looking_below_tls: asyncio.TimerHandle | None = None
    # Whose share this connection's answer takes, and how much of it.
    _unread = ("", 0)

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        most: int = MAX_CONNECTIONS,
        turns: Turns | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._turns = turns or Turns()
        self._tls = tls
        self._most = most
        # What has arrived, and hasn't been parsed.
        self._arrived = bytearray()
        self._has_turn = False
        self._has_begun = False

    def connection_made(self, transport: Any) -> None:
        """Begin TLS or requests, or close the connection if there are too many."""
        if len(self.connections) >= self._most:
            transport.abort()
            return
        # The library does so, too, but only after the handshake.
        self.connections.add(self)
        self.transport = self._tcp = transport
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
            # Its frames refer to it and to the handshake, whose buffers are large: until there is enough garbage to
            # collect, a flood of handshakes would take hundreds of megabytes.
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
        # Below TLS: if only the decrypted bytes are paused, asyncio reads 256 KiB of encrypted ones and more.
        self.flow = _Flow(self._tcp)
        self._take_turn()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, in turns. With the end of the handshake, it may come before the task knows of it."""
        self._arrived += data
        if self._has_begun:
            self._take_turn()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it has arrived, and don't wait long for the rest of this one."""
        # Before the library looks at the next request, which may be another caller's.
        self._look_below_tls()
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._looking:
            self._looking.cancel()
            self._look_in(LINGER_SECONDS)
        self._take_turn()

    def _take_turn(self) -> None:
        if self.transport.is_closing():
            # A TLS connection closes only when the peer's end has been read.
            self._arrived.clear()
            self._tcp.resume_reading()
            return
        # While a request is being answered, the parser takes no other. Nor may one while the answer isn't read.
        if (
            self._arrived
            and not self._has_turn
            and not self._waiting
            and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        ):
            self._has_turn = True
            self._turns.add(self._parse)
        if self._arrived:
            self.flow.hold()
        else:
            self.flow.release()

    def _parse(self) -> None:
        """Parse some lines: a head with the beginning of its body, or a part of either."""
        self._has_turn = False
        had_begun = self.conn.their_state is not h11.IDLE
        self._parse_lines()
        if not had_begun and self.conn.their_state is h11.SEND_BODY:
            self._parse_lines()
        self._take_turn()

    def _parse_lines(self) -> None:
        if self.transport.is_closing():
            return
        size = _size_of_lines(self._arrived)
        lines = bytes(self._arrived[:size])
        del self._arrived[:size]
        try:
            if lines:
                super().data_received(lines)
        except h11.LocalProtocolError:  # an invalid request that is being answered can't get a 400
            self.transport.abort()
            return
        # What the parser keeps is an unfinished head or trailer, or the beginning of the next request.
        if self.conn.trailing_data[0].count(b"\n") < MAX_HEAD_LINES:
            return
        if self.conn.our_state is h11.IDLE:
            self.send_400_response("Too many headers.")
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop checking."""
        self.connections.discard(self)
        if not self._has_begun:  # refused, or lost during the handshake
            return
        if self._looking:
            self._looking.cancel()
        if self._looking_below_tls:
            self._looking_below_tls.cancel()
        self._has_read()
        # Told of an error, the library lets the time-out of idle connections run, which keeps this one in memory.
        super().connection_lost(None)

    def pause_writing(self) -> None:
        """Count a response that the client doesn't read at once, and close the connection if there are too many."""
        super().pause_writing()
        if self._waiting:
            return
        user: Any = self.cycle.scope.get("user") if self.cycle else None
        holder, size = user.access_token.subject if user else "", self._unread_size()
        if self.unread.take(holder, size):
            self._unread = (holder, size)
            self._waiting = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)
        else:
            self._waiting = self.loop.call_soon(self.transport.abort)
        self._look_below_tls()

    def resume_writing(self) -> None:
        """Stop counting a response that has been read."""
        if self._tls and self._unread_size() > UNREAD_BYTES:
            self._look_below_tls()
        else:
            self._has_read()
            super().resume_writing()
            self._take_turn()

    def _unread_size(self) -> int:
        size: int = self.transport.get_write_buffer_size()
        return size + self._tcp.get_write_buffer_size() if self._tls else size

    def _look_below_tls(self, seconds: float = FIRST_LOOK_SECONDS) -> None:
        """Pause and resume writing, which asyncio does too late with TLS: it passes on whatever is written at once."""
        if self._tls is None:
            return
        if self._looking_below_tls:
            self._looking_below_tls.cancel()
        if self._unread_size() > UNREAD_BYTES:
            later = min(2 * seconds, LAST_LOOK_SECONDS)
            self._looking_below_tls = self.loop.call_later(seconds, self._look_below_tls, later)
            self.pause_writing()
        elif self._waiting:
            self.resume_writing()

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


def _size_of_lines(data: bytearray) -> int:
    lines = _LINES.match(data)
    return lines.end() if lines else len(data)
