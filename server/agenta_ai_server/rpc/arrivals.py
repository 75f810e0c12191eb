"""The calls whose request hasn't arrived: nothing has begun, so a server that stops refuses them."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Arrivals:
    """Lets calls wait for their requests until the server stops. It belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Timeout] = set()
        self._stopped = False

    def __len__(self) -> int:
        """Count the calls that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def until_stop(self) -> AsyncIterator[None]:
        """End what runs within when the server stops.

        Raises:
            Refused: OVERLOADED, if it has stopped.
        """
        if self._stopped:
            raise _stopping()
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._waiting.add(timeout)
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
        else:
            return
        finally:
            self._waiting.discard(timeout)
        raise _stopping()

    def refuse(self) -> None:
        """Refuse all calls that wait for their requests, and those that will."""
        self._stopped = True
        now = asyncio.get_running_loop().time()
        for timeout in self._waiting:
            timeout.reschedule(now)


def _stopping() -> Refused:
    delay = random.uniform(1, 2)  # noqa: S311  # spread, not secret
    message = (
        f"The server is stopping, and the request hasn't arrived. Nothing was billed. Retry in {delay:.1f} seconds."
    )
    return Refused(Reason.OVERLOADED, message, retry_delay=delay)
