"""The interceptors in their order, and the tool behind them."""

from __future__ import annotations

import asyncio
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from agenta_ai_server.domain.deadline import GRACE_SECONDS
from agenta_ai_server.domain.errors import DeadlinePassed, ToolFailed
from agenta_ai_server.domain.outcome import ToolOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from agenta_ai_server.domain.tool_call import ToolCall

Proceed: TypeAlias = "Callable[[ToolCall], Awaitable[ToolOutcome]]"


class Interceptor(Protocol):
    """One step that each tool call passes."""

    async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
        """Return the outcome of the ``call``, as a rule that of ``await proceed(call)``.

        Raises:
            Refused: The call is refused, and the tool was not run.
        """
        ...


class Pipeline:
    """Runs tool calls through the interceptors.

    Args:
        interceptors: In the order in which a call passes them.
    """

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        innermost: Proceed = run_tool
        self._proceed = reduce(_step, reversed(interceptors), innermost)

    def run(self, call: ToolCall) -> Coroutine[Any, Any, ToolOutcome]:
        """Return the outcome of one call.

        Raises:
            Refused: The call was refused, and the tool was not run.
            DeadlinePassed: The call took longer than it may.
        """
        return within_deadline(call, self._proceed)


def _step(proceed: Proceed, interceptor: Interceptor) -> Proceed:
    return partial(interceptor.intercept, proceed=proceed)


async def run_tool(call: ToolCall) -> ToolOutcome:
    """Run the tool; a failure becomes its outcome."""
    try:
        return await call.tools.get(call.name).run(call)
    except ToolFailed as failed:
        return ToolOutcome.of_failure(failed)


async def within_deadline(call: ToolCall, proceed: Proceed) -> ToolOutcome:
    """Return the outcome of ``proceed``, or cancel it at the call's deadline plus a grace period.

    Raises:
        DeadlinePassed: It was cancelled.
    """
    timeout = asyncio.timeout_at(call.deadline + GRACE_SECONDS)
    try:
        async with timeout:
            return await proceed(call)
    except TimeoutError:
        if timeout.expired():
            raise DeadlinePassed from None
        raise
