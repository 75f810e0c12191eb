"""Refinements against test cases: the cases and the results."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Required, TypedDict

from agenta_ai.diff import MessageChange, diff_messages
from agenta_ai.meta import CallMeta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenta_ai.meta import Metadata


class Expected(TypedDict, total=False):
    """What is expected of an output. At least one property must be set, and all that are set must hold.

    Attributes:
        equals: The output, ignoring leading and trailing white space.
        contains_all: Texts that the output must all contain. 1 to 20.
        contains_any: Texts of which the output must contain at least one. 1 to 20.
        contains_none: Texts that the output must not contain. 1 to 20.
        pattern: RE2 regular expression that must match somewhere in an output of at most 10,000 characters.
        json_schema: JSON Schema 2020-12. The output must be JSON that is valid against it.
        json_equals: JSON that the output must equal.
        json_contains: JSON that the output must contain: at least these keys and values, or these items in any order.
        max_characters: Maximum number of characters of the output, at least 1.
    """

    equals: str
    contains_all: Sequence[str]
    contains_any: Sequence[str]
    contains_none: Sequence[str]
    pattern: str
    json_schema: Mapping[str, Any]
    json_equals: Any
    json_contains: Any
    max_characters: int


class PromptCase(TypedDict, total=False):
    """One test case of a prompt.

    Attributes:
        inputs: Values of the prompt's variables.
        expected: What is expected of the output.
        name: Name in the report; at most 100 characters.
        remark: Description of the desired output, in plain words; at most 1,000 characters.
    """

    inputs: Required[Mapping[str, Any]]
    expected: Required[Expected]
    name: str
    remark: str


class Verdict(StrEnum):
    """Whether a case passes; ``UNKNOWN`` if its runs without output could change the verdict."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CaseRun:
    """One run of a case.

    Attributes:
        passed: Whether there is an output and it meets the expectations.
        output: The model's output, cut after 1,500 characters; empty if there is none.
        faults: What is wrong with the output, in sentences.
        failure: Why there is no output; empty if there is one.
        trace_id: Trace of the run in Agenta; empty if unknown.
    """

    passed: bool
    output: str = ""
    faults: tuple[str, ...] = ()
    failure: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of a case with one prompt: how many runs passed, and whether these are enough."""

    verdict: Verdict
    passes: int = 0
    runs: tuple[CaseRun, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseReport:
    """The results of a case with the original prompt and with the returned one."""

    name: str
    before: CaseResult
    after: CaseResult


@dataclass(frozen=True, slots=True)
class RefinementRound:
    """One attempt to improve the prompt.

    Attributes:
        end: The outcome: ``"taken"``, ``"not_better"``, ``"made_worse"``, ``"incomplete"`` or ``"rejected"``.
        why: The reason, in a sentence.
        summary: What the refinement changed; empty if there was none.
        passed: Number of cases that passed with it; 0 if they weren't run.
    """

    end: str
    why: str = ""
    summary: str = ""
    passed: int = 0


@dataclass(frozen=True, slots=True)
class CopiedText:
    """An expected text that the refinement put into the prompt, and the name of the case that expects it."""

    case: str
    text: str


@dataclass(frozen=True, slots=True)
class RefinedWithCases:
    """The best prompt that was found. In the reported runs, it passes every case that the original passed.

    Attributes:
        template: The whole template; the original if nothing was better.
        summary: The outcome, in one line.
        improved: Whether a case that failed before passes now.
        passed_before: Number of cases that passed with the original prompt.
        passed_after: Number of cases that pass with this prompt.
        cases: The cases, in the order in which they were sent.
        rounds: The attempts, in order.
        stopped: Why there were no further rounds: ``"all_pass"``, ``"none_fails"``, ``"rounds_used"``, ``"deadline"``
            or ``"upstream_failed"``.
        model_calls: Number of model calls that may have been billed.
        copied_texts: Expected texts that were copied into the prompt; cases may pass only because of them.
        original: The original template.
        template_json: The template in the server's own JSON.
        meta: How the result was produced.
        request_id: The idempotency key of the call.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
        trailers: The metadata at the end of the call, such as the rest of a rate limit.
    """

    template: dict[str, Any]
    summary: str = ""
    improved: bool = False
    passed_before: int = 0
    passed_after: int = 0
    cases: tuple[CaseReport, ...] = ()
    rounds: tuple[RefinementRound, ...] = ()
    stopped: str = ""
    model_calls: int = 0
    copied_texts: tuple[CopiedText, ...] = ()
    original: dict[str, Any] = field(default_factory=dict)
    template_json: str = ""
    meta: CallMeta = field(default_factory=CallMeta)
    request_id: str = ""
    call_id: str = ""
    trailers: Metadata = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.template_json:
            object.__setattr__(self, "template_json", json.dumps(self.template, ensure_ascii=False))

    @property
    def all_pass(self) -> bool:
        """Whether every case passes with this prompt."""
        return self.passed_after == len(self.cases)

    def diff(self) -> list[MessageChange]:
        """Return the messages whose text was changed, in order."""
        return diff_messages(self.original.get("messages"), self.template.get("messages"))
