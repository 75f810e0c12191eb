"""The callers that wait for one run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.outcome import Write
    from agenta_ai_server.domain.progress import Progress, Watch


class HasDeadline(Protocol):
    """Something with a deadline."""

    @property
    def deadline(self) -> float:
        """When the waiting ends, in seconds on the event loop's clock, as things are now; infinite for never."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A caller that waits for a run.

    Attributes:
        deadline: When it stops waiting, in seconds on the event loop's clock; infinite for never.
        watch: Takes the progress of the run; ``None`` if the caller doesn't watch it.
        on_join: Called if it only waits for a run that another caller has begun.
        write: Serializes the outcome for it; ``None`` if it takes the outcome as it is.
    """

    deadline: float = math.inf
    watch: Watch | None = None
    on_join: Callable[[], None] = lambda: None
    write: Write | None = None


@dataclass(slots=True, eq=False)
class Callers:
    """The callers that wait for one run, and join and leave it while it is running.

    Attributes:
        waiters: Those that wait for it now.
        latest: The last progress of the run; ``None`` before the first.
        begun: Whether the run may have been billed, so that it continues for a while when all callers have left.
    """

    waiters: list[Waiter] = field(default_factory=list)
    latest: Progress | None = None
    begun: bool = False

    @property
    def deadline(self) -> float:
        """When the last of them stops waiting."""
        return max((waiter.deadline for waiter in self.waiters), default=-math.inf)

    def join(self, waiter: Waiter) -> None:
        """Add a caller, and send it the run's current progress."""
        self.waiters.append(waiter)
        if waiter.watch and self.latest:
            waiter.watch(self.latest)

    def leave(self, waiter: Waiter) -> None:
        """Remove a caller."""
        self.waiters.remove(waiter)

    def report(self, progress: Progress) -> None:
        """Send the progress to those who watch, and keep it for those who join later."""
        self.latest = progress
        for waiter in self.waiters:
            if waiter.watch:
                waiter.watch(progress)
