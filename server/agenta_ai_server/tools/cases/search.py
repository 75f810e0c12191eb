"""Searches for a prompt that passes more cases: refines it, runs all cases again, and accepts only improvements."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed
from agenta_ai_server.domain.record import record
from agenta_ai_server.tools.cases import feedback
from agenta_ai_server.tools.cases.runner import REPORT_SECONDS, bounded
from agenta_ai_server.tools.cases.trial import Trial, Verdict
from agenta_ai_server.tools.refine_prompt.refiner import NO_CHANGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments
    from agenta_ai_server.tools.cases.copied import Copied
    from agenta_ai_server.tools.cases.runner import CaseRunner
    from agenta_ai_server.tools.refine_prompt.refiner import Refiner
    from agenta_ai_server.tools.refine_prompt.template import Template

MAX_NAMES = 3


class RoundEnd(StrEnum):
    """The outcome of one round's refinement."""

    TAKEN = "taken"
    NOT_BETTER = "not_better"
    MADE_WORSE = "made_worse"
    INCOMPLETE = "incomplete"
    REJECTED = "rejected"


class Stop(StrEnum):
    """Why there was no further round."""

    ALL_PASS = "all_pass"  # noqa: S105  # no password
    NONE_FAILS = "none_fails"
    ROUNDS_USED = "rounds_used"
    DEADLINE = "deadline"
    UPSTREAM_FAILED = "upstream_failed"


@record
class Round:
    """One round.

    Attributes:
        end: The outcome of its refinement.
        why: The reason, in a sentence.
        summary: What the refinement changed; empty if there was none.
        passed: How many cases passed with it; 0 if they weren't run.
    """

    end: RoundEnd
    why: str
    summary: str = ""
    passed: int = 0


@record
class Draft:
    """A prompt that the cases can be run with.

    Attributes:
        prompt: The prompt.
        summary: What was changed, in one line.
        copied: The expected texts that were copied into it.
    """

    prompt: Template
    summary: str = NO_CHANGE
    copied: Sequence[Copied] = ()


@record
class Candidate:
    """A draft, and the results of the cases with it."""

    draft: Draft
    trial: Trial


@dataclass(slots=True)
class Found:
    """The result of the search.

    Attributes:
        original: The original prompt.
        best: The one that passes most, which may be the original.
        rounds: In their order.
        stop: Why there was no further round.
        why: What failed, in a sentence, if a failure is the reason.
    """

    original: Candidate
    best: Candidate
    rounds: list[Round] = field(default_factory=list)
    stop: Stop = Stop.ROUNDS_USED
    why: str = ""

    @property
    def improved(self) -> bool:
        """Whether a case that failed passes now."""
        return self.best is not self.original


class _Stopped(Exception):
    """The search can't go on."""

    def __init__(self, stop: Stop, why: str = "") -> None:
        super().__init__(why)
        self.stop = stop
        self.why = why


class Search:
    """Searches for a better prompt, for one call.

    Args:
        arguments: The cases, and how many rounds there may be.
        refiner: Refines prompts.
        runner: Runs the cases.
        excess: Returns why a template may not be run, or nothing.
        copied: Returns the expected texts that the second prompt has and the first doesn't.
        call: The call that it is for.
    """

    def __init__(
        self,
        arguments: RefineWithCasesArguments,
        refiner: Refiner,
        runner: CaseRunner,
        excess: Callable[[Mapping[str, Any]], Awaitable[str]],
        copied: Callable[[Template, Template], Awaitable[Sequence[Copied]]],
        call: ToolCall,
    ) -> None:
        self._arguments = arguments
        self._refiner = refiner
        self._runner = runner
        self._excess = excess
        self._copied = copied
        self._call = call
        # How long things took at most, so far.
        self._trial_seconds = self._refining_seconds = 0.0

    async def run(self, prompt: Template) -> Found:
        """Return the best prompt. Once anything has been billed, this always returns a result.

        Raises:
            Refused: Nothing was sent.
            ToolFailed: No run of the original produced an output.
        """
        trial = await self._trial(prompt.root, "Running the test cases with the prompt as it is")
        if not trial.has_output:
            raise _failure(trial)
        original = Candidate(Draft(prompt), trial)
        found = Found(original, original)
        try:
            while len(found.rounds) < self._arguments.max_rounds:
                self._check_whether_to_go_on(found)
                await self._round(found)
            if not found.best.trial.those(Verdict.FAILED):
                self._check_whether_to_go_on(found)
        except _Stopped as stopped:
            found.stop, found.why = stopped.stop, stopped.why
        return found

    async def _trial(self, root: Mapping[str, Any], what: str) -> Trial:
        trial = await self._runner.run(root, what)
        self._trial_seconds = max(self._trial_seconds, trial.seconds)
        return trial

    def _check_whether_to_go_on(self, found: Found) -> None:
        """Raise if there is nothing to refine, or too little time for a whole round."""
        trial = found.best.trial
        if trial.passed == len(trial.cases):
            raise _Stopped(Stop.ALL_PASS)
        if not trial.those(Verdict.FAILED):
            raise _Stopped(Stop.NONE_FAILS)
        # A refinement writes the whole prompt. Before the first, nothing tells how long that takes, but that it is one
        # call of a model, and all runs of a trial took that time.
        needed = self._trial_seconds + (self._refining_seconds or self._trial_seconds) + REPORT_SECONDS
        if self._call.remaining_for_callers() < needed:
            raise _Stopped(Stop.DEADLINE)

    async def _round(self, found: Found) -> None:
        """Refine the best prompt so far, and accept the refinement if it is better.

        Raises:
            _Stopped: The refinement failed, or no run with it produced an output.
        """
        draft = await self._drafted_in_time(found)
        if isinstance(draft, Round):
            found.rounds.append(draft)
            return
        number = f"Round {len(found.rounds) + 1} of {self._arguments.max_rounds}"
        trial = await self._trial(draft.prompt.root, f"{number}: running the test cases")
        round_ = self._judged(found, trial, draft.summary)
        found.rounds.append(round_)
        if round_.end is RoundEnd.TAKEN:
            found.best = Candidate(draft, trial)
        if not trial.has_output:
            raise _Stopped(*_why_nothing_came(trial, self._call))

    async def _drafted_in_time(self, found: Found) -> Draft | Round:
        """Return a draft with everything that a report says of it, so that nothing waits once its cases have been run.

        Raises:
            _Stopped: The refinement failed, or came too late to report what has been billed.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        limited = bounded(self._call)
        try:
            # Each step may have to wait for its turn.
            async with asyncio.timeout_at(limited.deadline):
                return await self._drafted(found, limited)
        except TimeoutError:
            raise _Stopped(Stop.DEADLINE) from None
        finally:
            self._refining_seconds = max(self._refining_seconds, clock() - began)

    async def _drafted(self, found: Found, call: ToolCall) -> Draft | Round:
        """Return a draft to be tried, or a round that ends without one."""
        rejections = [round_.why for round_ in found.rounds if round_.end is not RoundEnd.TAKEN]
        context = feedback.context(self._arguments, found.best.trial, rejections)
        guidelines = feedback.guidelines(self._arguments)
        best = found.best.draft.prompt
        try:
            refinement = (await self._refiner.refine(best, guidelines, context, call)).answer
        except Refused as refused:
            is_late = refused.reason is Reason.DEADLINE_TOO_SHORT
            raise _Stopped(Stop.DEADLINE if is_late else Stop.UPSTREAM_FAILED, refused.message) from None
        except ToolFailed as failed:
            if failed.reason is not Reason.UPSTREAM_OUTPUT_INVALID:
                is_late = self._call.remaining_for_callers() < 2 * REPORT_SECONDS
                raise _Stopped(Stop.DEADLINE if is_late else Stop.UPSTREAM_FAILED, failed.message) from None
            return Round(RoundEnd.REJECTED, failed.message)
        if refinement.root == best.root:
            return Round(RoundEnd.NOT_BETTER, "The refinement changed nothing.", refinement.summary)
        if why := await self._excess(refinement.root):
            return Round(RoundEnd.REJECTED, why, refinement.summary)
        prompt = await self._refiner.parse(refinement.source, call)
        copied = await self._copied(found.original.draft.prompt, prompt)
        return Draft(prompt, refinement.summary, copied)

    def _judged(self, found: Found, trial: Trial, summary: str) -> Round:
        """Say whether a refinement is accepted."""

        def named(indices: list[int]) -> str:
            more = f" and {len(indices) - MAX_NAMES} more" if len(indices) > MAX_NAMES else ""
            return ", ".join(f'"{self._arguments.name_of(index)}"' for index in indices[:MAX_NAMES]) + more

        before = found.original.trial
        passed_before, failed_before = (set(before.those(verdict)) for verdict in (Verdict.PASSED, Verdict.FAILED))
        worse = sorted(passed_before.intersection(trial.those(Verdict.FAILED)))
        unknown = sorted(passed_before.intersection(trial.those(Verdict.UNKNOWN)))
        gained = len(failed_before.intersection(trial.those(Verdict.PASSED)))
        if worse:
            end, why = RoundEnd.MADE_WORSE, f"Cases that passed before failed with it: {named(worse)}."
            faults = next((run.faults[0] for run in trial.cases[worse[0]].runs if run.faults), "")
            why = f"{why} {faults}".strip()
        elif unknown:
            end = RoundEnd.INCOMPLETE
            why = f"It is unknown whether these cases, which passed before, still pass: {named(unknown)}."
        elif gained <= len(failed_before.intersection(found.best.trial.those(Verdict.PASSED))):
            end, why = RoundEnd.NOT_BETTER, f"No more cases passed with it: {trial.passed} of {len(trial.cases)}."
        else:
            end, why = RoundEnd.TAKEN, f"{trial.passed} of {len(trial.cases)} cases passed with it."
        return Round(end, why, summary, trial.passed)


def _failure(trial: Trial) -> ToolFailed | Refused:
    """Return why no run of the original produced an output."""
    failed = [error for error in trial.errors if isinstance(error, ToolFailed)]
    if not failed:
        return trial.errors[0]
    first = failed[0]
    return ToolFailed(
        first.reason,
        first.message,
        retryable=all(error.retryable for error in failed),
        retry_delay=first.retry_delay,
        attempts=[attempt for error in failed for attempt in error.attempts],
    )


def _why_nothing_came(trial: Trial, call: ToolCall) -> tuple[Stop, str]:
    if call.remaining_for_callers() < 2 * REPORT_SECONDS:
        return Stop.DEADLINE, ""
    return Stop.UPSTREAM_FAILED, trial.cases[0].runs[0].failure
