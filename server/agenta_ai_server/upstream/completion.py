"""The completion service as the tools see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.domain.results import Attempt


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, as it wrote it, and the request that brought it."""

    text: str
    attempt: Attempt


class CompletionService(Protocol):
    """Runs prompts that are deployed in Agenta."""

    async def complete(self, app: str, inputs: Mapping[str, str], *, deadline: float | None) -> Completion:
        """Run one prompt and return what the model wrote.

        Args:
            app: Slug of the application whose prompt is run.
            inputs: The prompt's variables.
            deadline: When the caller stops waiting, in seconds on the event loop's clock; ``None`` if it didn't say.

        Raises:
            Refused: DEADLINE_TOO_SHORT, before anything was sent.
            UpstreamFailed: No completion, for one of the ``UPSTREAM_`` reasons.

        A cancelled call closes its connection.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. Calls that run fail."""
        ...
