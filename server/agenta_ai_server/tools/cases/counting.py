"""Counts the model calls of one call of the tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import UpstreamFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.completion_service import AnyPrompt, Completion, CompletionService
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt, Json


class CountingCompletions:
    """A :class:`~agenta_ai_server.agenta.completion_service.CompletionService` that counts.

    Args:
        inner: The service.

    Attributes:
        calls: How many calls of a model may have been billed.
        attempts: All requests that were sent, in the order in which they ended.
    """

    def __init__(self, inner: CompletionService) -> None:
        self._inner = inner
        self.calls = 0
        self.attempts: list[Attempt] = []

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Run one prompt, as the service itself."""
        try:
            completion = await self._inner.complete(prompt, inputs, call)
        except UpstreamFailed as failure:
            self.calls += failure.may_have_run
            self.attempts += failure.attempts
            raise
        self.calls += 1
        self.attempts += completion.attempts
        return completion
