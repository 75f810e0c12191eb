"""Time that goes when it is told to, and a completion service that does what it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.completion_service import Completion
from agenta_ai_server.domain.errors import Reason, Refused, UpstreamFailed
from agenta_ai_server.domain.values import Attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agenta_ai_server.agenta.completion_service import AnyPrompt
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

BOUGHT = {Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_BROKEN, Reason.UPSTREAM_FAILED, Reason.UPSTREAM_OUTPUT_INVALID}
FINAL = {Reason.UPSTREAM_REJECTED, Reason.UPSTREAM_CREDENTIALS_REJECTED, Reason.UPSTREAM_MISCONFIGURED}
TRANSIENT = {
    Reason.UPSTREAM_UNREACHABLE,
    Reason.UPSTREAM_RATE_LIMITED,
    Reason.UPSTREAM_UNAVAILABLE,
    Reason.UPSTREAM_TIMEOUT,
    Reason.UPSTREAM_BROKEN,
}


class Clock:
    """Seconds that pass only by ``now`` and by :meth:`sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Scripted:
    """Answers the next calls with these in turn, and all later ones with the last."""

    def __init__(self, *replies: UpstreamFailed | Refused | str | Callable[[], Awaitable[Completion]]) -> None:
        self.replies = list(replies)
        self.deadlines: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.deadlines)

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        self.deadlines.append(call.deadline)
        reply = self.replies[min(self.calls, len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            return await reply()
        return Completion(reply, Attempt(f"{self.calls:032x}", 1.0))


def failed(
    reason: Reason, *, delay: float | None = None, trace: str = "", healthy: bool | None = False
) -> UpstreamFailed:
    return UpstreamFailed(
        reason,
        "It failed.",
        attempt=Attempt(trace or reason, 0.5),
        may_have_run=reason in BOUGHT,
        retryable=reason not in BOUGHT | FINAL,
        retry_delay=delay,
        transient=reason in TRANSIENT,
        healthy=healthy,
    )


def unavailable(delay: float | None = None) -> UpstreamFailed:
    return failed(Reason.UPSTREAM_UNAVAILABLE, delay=delay)


def unreachable() -> UpstreamFailed:
    return failed(Reason.UPSTREAM_UNREACHABLE)


def circuit_open(delay: float) -> Refused:
    return Refused(Reason.UPSTREAM_CIRCUIT_OPEN, "It is open.", retry_delay=delay)
