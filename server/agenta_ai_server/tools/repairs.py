"""Runs a deployed prompt until its answer follows a tool's rules, with as many repairs as the tool allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed, UpstreamFailed
from agenta_ai_server.domain.progress import Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agenta_ai_server.agenta.completion_service import Completion
    from agenta_ai_server.domain.errors import Violation
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt

MAX_VIOLATIONS = 10

Answer = TypeVar("Answer")


class AnswerInvalid(Exception):
    """The model's answer breaks the tool's rules.

    Attributes:
        violations: The rules, at least one.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations[0].description)
        self.violations = tuple(violations)


@dataclass(frozen=True, slots=True)
class ValidAnswer(Generic[Answer]):
    """An answer that follows the rules.

    Attributes:
        answer: What ``parse`` made of the model's text.
        attempts: The requests that were sent, in their order.
        repaired: Whether the first answer broke a rule.
    """

    answer: Answer
    attempts: tuple[Attempt, ...]
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairableTask(Generic[Answer]):
    """A prompt to run, and how to parse its answer.

    Attributes:
        complete: Runs the prompt. Takes what was wrong with the last answer: nothing, the first time.
        parse: Parses what the model wrote; raises ``AnswerInvalid``. Also takes the requests that were sent so far.
        asking_text: The progress sentence while the model works.
        checking_text: The progress sentence while the answer is checked.
        failure_text: Returns the sentence for an answer that stays invalid, given the first violation.
    """

    complete: Callable[[Sequence[Violation]], Awaitable[Completion]]
    parse: Callable[[str, Sequence[Attempt]], Awaitable[Answer]]
    asking_text: str
    checking_text: str
    failure_text: Callable[[Violation], str]


async def run_with_repairs(task: RepairableTask[Answer], call: ToolCall, repairs: int) -> ValidAnswer[Answer]:
    """Return an answer that follows the rules.

    Args:
        task: The prompt to run.
        call: The tool call that it is for.
        repairs: How often the model is asked again after an invalid answer, at least 0. Each is billed.

    Raises:
        Refused: DEADLINE_TOO_SHORT or UPSTREAM_CIRCUIT_OPEN, before anything was sent.
        ToolFailed: No completion came, or none that keeps the rules: UPSTREAM_OUTPUT_INVALID with the violations.
    """
    call.report(Stage.ASKING, task.asking_text)
    completion = await task.complete(())
    attempts = [*completion.attempts]
    for repair in range(repairs + 1):
        call.report(Stage.CHECKING, task.checking_text)
        try:
            answer = await task.parse(completion.text, attempts)
        except AnswerInvalid as invalid:
            violations = invalid.violations
        else:
            return ValidAnswer(answer, tuple(attempts), repaired=repair > 0)
        if repair == repairs:
            break
        call.report(Stage.REPAIRING, f"Asking again. {violations[0].description}")
        try:
            completion = await task.complete(violations)
        except Refused:
            break  # too little time is left, or the completion service has begun to fail
        except UpstreamFailed as failure:
            # The caller still gets the failure of the answer that came, because it was billed.
            attempts += failure.attempts
            break
        attempts += completion.attempts
    raise ToolFailed(
        Reason.UPSTREAM_OUTPUT_INVALID,
        task.failure_text(violations[0]),
        violations=violations[:MAX_VIOLATIONS],
        attempts=attempts,
    )


def as_list(violations: Sequence[Violation]) -> str:
    """Return the violations as a list that a model reads."""
    return "\n".join(f"- {violation.description}" for violation in violations[:MAX_VIOLATIONS])
