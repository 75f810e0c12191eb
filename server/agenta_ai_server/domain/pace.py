"""How long work on the event loop is paced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable

Result = TypeVar("Result")


class Pace(Protocol):
    """Does long work in steps: see :class:`~agenta_ai_server.concurrency.pacing.PacedWork`."""

    async def run(self, caller: Hashable, steps: Generator[None, None, Result], /) -> Result:
        """Do the work when it is the caller's turn."""
        ...
