"""Runs a call only once, even if it is sent several times."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from agenta_ai_server.domain.callers import Waiter
from agenta_ai_server.domain.digest import digest
from agenta_ai_server.domain.errors import Reason, Violation, invalid_fields
from agenta_ai_server.domain.tool_call import is_request_id
from agenta_ai_server.idempotency.in_flight import RunId
from agenta_ai_server.pipeline.pipeline import within_deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.domain.callers import Callers
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.idempotency.in_flight import InFlightCalls
    from agenta_ai_server.pipeline.pipeline import Proceed


class Idempotency:
    """Gives a repeated call, one with the same request_id, the outcome of the first.

    Args:
        in_flight: The runs in flight, and the outcomes of those that have ended.
        min_seconds: Seconds that a caller must have left for a run to begin.
    """

    def __init__(self, in_flight: InFlightCalls, min_seconds: float) -> None:
        self._in_flight = in_flight
        self._min_seconds = min_seconds

    async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
        """Begin the run of the request_id, join it, or return its stored outcome.

        Raises:
            Refused: REQUEST_INVALID, ARGUMENTS_INVALID, REQUEST_ID_REUSED, REPLAY_STORE_UNAVAILABLE,
                DEADLINE_TOO_SHORT, OVERLOADED, or what refused the run.
            DeadlinePassed: The run took longer than it may.
        """
        if not call.request_id:
            return await proceed(call)
        if not is_request_id(call.request_id):
            wrong = Violation(
                "request_id", "Must be a UUID, version 4, such as 1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b, or absent."
            )
            raise invalid_fields(Reason.REQUEST_INVALID, wrong)

        async def work(callers: Callers, on_billing: Callable[[], Awaitable[None]]) -> ToolOutcome:
            # The run belongs to the id: it has a deadline of its own, and outlives its first caller.
            deadline = asyncio.get_running_loop().time() + call.max_seconds
            run = replace(call, deadline=deadline, callers=callers, watch=callers.report, on_billing=on_billing)
            run.require_time(self._min_seconds)
            return await within_deadline(run, proceed)

        caller = call.caller
        # Each project and each kind of credential has its own ids: a result must not reach someone who may not see it.
        principal = digest(caller.method, caller.user, caller.organization, caller.workspace, caller.project).hex()
        key = digest(principal, call.request_id.lower()).hex()
        run_id = RunId(key, call.fingerprint(), principal, call.rerun_if_outcome_unknown)
        waiter = Waiter(call.deadline, call.watch, call.lazy_arguments.release, call.write)
        return await self._in_flight.run(run_id, work, waiter)
