"""The completion service as the tools see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.domain.call import HasDeadline
    from agenta_ai_server.domain.results import Attempt


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote.

    Attributes:
        text: As the model wrote it.
        attempt: The request that brought it.
        earlier: The requests before it, which failed, in their order.
    """

    text: str
    attempt: Attempt
    earlier: tuple[Attempt, ...] = ()

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All requests that were sent, in their order."""
        return (*self.earlier, self.attempt)


class CompletionService(Protocol):
    """InFlightCalls prompts that are deployed in Agenta."""

    async def complete(
        self, app: str, inputs: Mapping[str, str], *, deadline: float | None, waiting: HasDeadline | None = None
    ) -> Completion:
        """Run one prompt and return what the model wrote.

        Args:
            app: Slug of the application whose prompt is run.
            inputs: The prompt's variables.
            deadline: When the call ends, in seconds on the event loop's clock; ``None`` for never.
            waiting: Who waits for it, if that may end before the deadline: no request is sent again for nobody.

        Raises:
            Refused: DEADLINE_TOO_SHORT or UPSTREAM_CIRCUIT_OPEN, before anything was sent.
            UpstreamFailed: No completion, for one of the ``UPSTREAM_`` reasons.

        A cancelled call closes its connection.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. Calls that run fail."""
        ...
