"""The callers that wait for one run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agenta_ai_server.domain.progress import Progress, Watch


class HasDeadline(Protocol):
    """Something with a deadline."""

    @property
    def deadline(self) -> float:
        """When the waiting ends, in seconds on the event loop's clock, as things are now; infinite for never."""


@dataclass(slots=True, eq=False)
class Callers:
    """The callers that wait for one run, and join and leave it while it is running.

    Attributes:
        deadlines: When each of them stops waiting, in seconds on the event loop's clock; infinite for never.
        watchers: Those of them that watch its progress.
        latest: The last progress of the run; ``None`` before the first.
        begun: Whether the run may have been billed, so that it continues for a while when all callers have left.
    """

    deadlines: list[float] = field(default_factory=list)
    watchers: list[Watch] = field(default_factory=list)
    latest: Progress | None = None
    begun: bool = False

    @property
    def deadline(self) -> float:
        """When the last of them stops waiting."""
        return max(self.deadlines, default=-math.inf)

    def join(self, deadline: float, watch: Watch | None) -> None:
        """Add a caller, and send it the run's current progress."""
        self.deadlines.append(deadline)
        if watch:
            self.watchers.append(watch)
            if self.latest:
                watch(self.latest)

    def leave(self, deadline: float, watch: Watch | None) -> None:
        """Remove a caller."""
        self.deadlines.remove(deadline)
        if watch:
            self.watchers.remove(watch)

    def report(self, progress: Progress) -> None:
        """Send the progress to all watchers, and keep it for those who join later."""
        self.latest = progress
        for watch in self.watchers:
            watch(progress)
