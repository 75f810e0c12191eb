"""Connections of the HTTP endpoint that don't send requests are closed, so that they keep nobody out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

#: Seconds in which a new connection must send the head of a request.
HEAD_SECONDS = 10.0
#: Seconds for which a connection is kept between two requests; twice as long, if the next one arrives slowly.
KEEP_ALIVE_SECONDS = 75


class Connection(H11Protocol):
    """One connection. H11 bounds the size of heads, as the other parser of the library doesn't."""

    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to look whether requests come."""
        super().connection_made(transport)
        self._look_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look_in(self, seconds: float) -> None:
        self._looking = self.loop.call_later(seconds, self._look, self.cycle)

    def _look(self, last: object) -> None:
        """Close the connection if no request is running, and none has come since the last look."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        else:
            self._look_in(KEEP_ALIVE_SECONDS)
