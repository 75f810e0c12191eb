"""Runs a prompt on all cases, several at once."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.completion_service import InlinePrompt
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed
from agenta_ai_server.domain.progress import Stage
from agenta_ai_server.tools.cases.trial import CaseRun, CaseRuns, Trial
from agenta_ai_server.tools.workers.pool import FAILED, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agenta_ai_server.agenta.completion_service import CompletionService
    from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments
    from agenta_ai_server.tools.cases.checker import Checker

# Runs of one call at the same time.
MAX_AT_ONCE = 5
# What is kept of an output once it has been checked: a model learns up to 2,000 of these, and callers read fewer. An
# answer of Agenta's has up to 256 KiB, and a call keeps hundreds of them.
KEPT_CHARACTERS = 2_001
UNCHECKED = f"The output can't be checked: {FAILED}."
# What is kept of a call's time to report what came of it.
REPORT_SECONDS = 0.5


def bounded(call: ToolCall) -> ToolCall:
    """Return the call with a deadline that leaves time for the report if somebody is waiting for it."""
    return replace(call, deadline=asyncio.get_running_loop().time() + call.remaining_for_callers() - REPORT_SECONDS)


@dataclass(slots=True, eq=False)
class _Progress:
    """The waiting and the finished runs of one trial."""

    parameters: dict[str, Any]
    waiting: deque[int]
    total: int
    tell: Callable[[int, int], None]
    done: int = 0
    runs: dict[int, list[CaseRun]] = field(default_factory=dict)


class CaseRunner:
    """Runs the cases of one call.

    Each run holds a slot. The first run uses the slot of the call itself, so there is always one. The others use free
    slots, but never one that another call is waiting for.

    Args:
        completions: Runs prompts.
        limiter: Gives the slots.
        arguments: The cases, and how often each is run.
        checkers: Of each case.
        prepared: Returns a template as it is run.
        call: The call that it is for.
    """

    def __init__(
        self,
        completions: CompletionService,
        limiter: ConcurrencyLimiter,
        arguments: RefineWithCasesArguments,
        checkers: Sequence[Checker],
        prepared: Callable[[Mapping[str, Any]], dict[str, Any]],
        call: ToolCall,
    ) -> None:
        self._completions = completions
        self._limiter = limiter
        self._arguments = arguments
        self._checkers = checkers
        self._prepared = prepared
        self._call = call

    async def run(self, root: Mapping[str, Any], what: str) -> Trial:
        """Run all cases with one template.

        Args:
            root: The template.
            what: The beginning of the progress sentence for the caller.

        Raises:
            Refused: The call can't be recorded as begun, and nothing was sent.
        """
        # Once, and before there are tasks: what it raises is for whoever runs the call.
        await self._call.begin_billing()
        cases, repeat = len(self._arguments.cases), self._arguments.repeat
        progress = _Progress(
            {"prompt": self._prepared(root)},
            deque(index for _ in range(repeat) for index in range(cases)),
            cases * repeat,
            lambda done, total: self._call.report(
                Stage.RUNNING_CASES, f"{what}: {done} of {total} runs are done.", done, total
            ),
        )
        progress.tell(0, progress.total)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_on_own_slot(progress))
                for _ in range(min(MAX_AT_ONCE, progress.total) - 1):
                    group.create_task(self._run_on_free_slots(progress))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # a bug, to be seen where it is
        runs = (tuple(progress.runs[index]) for index in range(cases))
        return Trial(tuple(CaseRuns(each, self._arguments.passes) for each in runs), clock() - began)

    async def _run_on_own_slot(self, progress: _Progress) -> None:
        while progress.waiting:
            await self._run_next(progress)

    async def _run_on_free_slots(self, progress: _Progress) -> None:
        # Not full, so that nobody waits, and entering doesn't either.
        while progress.waiting and not self._limiter.is_full:
            async with self._limiter.slot(self._call.caller.organization):
                await self._run_next(progress)

    async def _run_next(self, progress: _Progress) -> None:
        index = progress.waiting.popleft()
        run = await self._run(index, progress.parameters)
        progress.runs.setdefault(index, []).append(run)
        progress.done += 1
        progress.tell(progress.done, progress.total)

    async def _run(self, index: int, parameters: dict[str, Any]) -> CaseRun:
        prompt = InlinePrompt(parameters, self._call.credential)
        # The watchers are told of the whole, not of the pauses of each run.
        call = replace(bounded(self._call), watch=None)
        try:
            completion = await self._completions.complete(prompt, self._arguments.cases[index].inputs, call)
        except (ToolFailed, Refused) as error:
            attempts = error.attempts if isinstance(error, ToolFailed) else ()
            # Without its frames, which hold the prompt.
            return CaseRun(error=error.with_traceback(None), trace_id=attempts[-1].trace_id if attempts else "")
        trace_id = completion.attempt.trace_id
        try:
            async with asyncio.timeout_at(call.deadline):
                faults = await self._checkers[index].faults(completion.text)
        except (WorkerFailed, TimeoutError):
            return CaseRun(error=ToolFailed(Reason.UPSTREAM_OUTPUT_INVALID, UNCHECKED), trace_id=trace_id)
        return CaseRun(completion.text[:KEPT_CHARACTERS], tuple(faults), trace_id=trace_id)
