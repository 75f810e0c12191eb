"""Progress of a call, as notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from mcp.server.session import ServerSession

    from agenta_ai.results import Progress

# Seconds that a client has to take a notification. Of one that doesn't, the call goes on without progress.
SECONDS = 2.0
# MCP wants every notification to be further than the last one.
_FURTHER = 0.01


class ProgressReport:
    """Sends the progress of one call, if the client asked for it.

    Each message counts as one step; if the service counts steps itself, its count is added.

    Args:
        session: The session of the request. It sends nothing if the client didn't request progress.
    """

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self._last = 0.0
        self._before_counting: float | None = None
        self._is_read = True

    async def send(self, progress: Progress) -> None:
        """Send one notification, or drop it if the client isn't reading."""
        if not self._is_read:
            return
        self._last, total = self._position(progress)
        with anyio.move_on_after(SECONDS) as scope:
            await self._session.report_progress(self._last, total, progress.text)
        self._is_read = not scope.cancelled_caught

    def _position(self, progress: Progress) -> tuple[float, float | None]:
        if not progress.total:
            return self._last + 1, None
        if self._before_counting is None:
            self._before_counting = self._last
        position = self._before_counting + progress.done
        return max(position, self._last + _FURTHER), self._before_counting + progress.total
