"""Closes connections of the HTTP endpoint that send no requests, or don't read their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from agenta_ai.mcp.shares import Shares

if TYPE_CHECKING:
    import asyncio

#: Seconds in which a new connection must send the head of a request.
HEAD_SECONDS = 10.0
#: Seconds for which a connection is kept between two requests; twice as long, if the next one arrives slowly.
KEEP_ALIVE_SECONDS = 75
#: Seconds in which an answer must be read. The largest ones have some megabytes.
UNREAD_SECONDS = 60.0
#: Bytes of answers that nobody has read yet, all together, and those of one caller.
MAX_UNREAD = 256 << 20
MAX_UNREAD_OF_CALLER = 32 << 20


class Connection(H11Protocol):
    """One connection. H11 bounds the size of heads, as the other parser of the library doesn't."""

    #: Of all connections.
    unread = Shares(MAX_UNREAD, MAX_UNREAD_OF_CALLER)
    _looking: asyncio.TimerHandle | None = None
    _waiting: asyncio.Handle | None = None
    # Whose share this connection's answer takes, and how much of it.
    _unread = ("", 0)

    def connection_made(self, transport: Any) -> None:
        """Begin to look whether requests come."""
        super().connection_made(transport)
        self._look_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._looking:
            self._looking.cancel()
        self._has_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Count an answer that its client doesn't read at once, and close the connection if there are too many."""
        super().pause_writing()
        user: Any = self.cycle.scope.get("user") if self.cycle else None
        holder, size = user.access_token.subject if user else "", self.transport.get_write_buffer_size()
        if self.unread.take(holder, size):
            self._unread = (holder, size)
            self._waiting = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)
        else:
            self._waiting = self.loop.call_soon(self.transport.abort)

    def resume_writing(self) -> None:
        """Stop counting an answer that has been read."""
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
        """Close the connection if no request is running, and none has come since the last look."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        else:
            self._look_in(KEEP_ALIVE_SECONDS)
