"""Limits how many tools run at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agenta_ai_server.domain.progress import Stage

if TYPE_CHECKING:
    from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.pipeline.pipeline import Proceed


class ConcurrencyLimit:
    """Lets a call proceed when it has a slot."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter

    async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
        """Hold a slot for as long as the call runs.

        Raises:
            Refused: OVERLOADED, or ARGUMENTS_INVALID for arguments that can't be read.
        """
        if self._limiter.is_full:
            # A queued call keeps only the arguments: a request with unknown fields takes far more memory.
            call.lazy_arguments.load()
        on_position = partial(_report_position, call) if call.watch else None
        async with self._limiter.slot(call.caller.organization, call.waiting, on_position):
            call.report(Stage.STARTED, "The tool has started.")
            return await proceed(call)


def _report_position(call: ToolCall, position: int) -> None:
    text = f"Waiting for a free slot, at position {position} in the queue."
    call.report(Stage.QUEUED, text, queue_position=position)
