"""Refinements against test cases: the cases as they are sent, and what comes back."""

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
    """What is expected of an output. All that is given must hold, and something must be given.

    Attributes:
        equals: The output, but for white space around it.
        contains_all: Texts that it contains, all of them. 1 to 20.
        contains_any: Texts of which it contains one at least. 1 to 20.
        contains_none: Texts of which it contains none. 1 to 20.
        pattern: Regular expression, RE2, that matches somewhere in it. Outputs have at most 10,000 characters then.
        json_schema: JSON Schema 2020-12 by which it is valid JSON.
        json_equals: The output as JSON.
        json_contains: What it contains as JSON: of objects, these keys with such values; of lists, these items in any
            order.
        max_characters: How many characters it has at most, at least 1.
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
        name: Names it in the report; at most 100 characters.
        remark: What the output should be like, in plain words; at most 1,000 characters.
    """

    inputs: Required[Mapping[str, Any]]
    expected: Required[Expected]
    name: str
    remark: str


class Verdict(StrEnum):
    """Whether a case passes; ``UNKNOWN`` if too many of its runs gave no output."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CaseRun:
    """One run of a case.

    Attributes:
        passed: Whether an output came, and is as expected.
        output: What the model wrote, cut after 1,500 characters; empty if nothing came.
        faults: What is wrong with it, in sentences.
        failure: Why no output came; empty if one did.
        trace_id: Trace of the run in Agenta; empty if unknown.
    """

    passed: bool
    output: str = ""
    faults: tuple[str, ...] = ()
    failure: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A case with one prompt: how many of its runs passed, and whether these are enough."""

    verdict: Verdict
    passes: int = 0
    runs: tuple[CaseRun, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseReport:
    """A case with the prompt as it was sent, and with the one that came back."""

    name: str
    before: CaseResult
    after: CaseResult


@dataclass(frozen=True, slots=True)
class RefinementRound:
    """One attempt to make the prompt better.

    Attributes:
        end: What became of it: ``"taken"``, ``"not_better"``, ``"made_worse"``, ``"incomplete"`` or ``"rejected"``.
        why: The same in a sentence.
        summary: What it changed; empty if no refinement came.
        passed: How many cases passed with it; 0 if they weren't run.
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
    """The best prompt that was found. No case that passed before fails in the reported runs of it.

    Attributes:
        template: The whole template; as it was sent if nothing was better.
        summary: What came of it, in a line.
        improved: Whether a case that failed before passes now.
        passed_before: How many cases passed with the prompt as it was sent.
        passed_after: How many pass with this one.
        cases: Each case, in the order in which they were sent.
        rounds: The attempts, in their order.
        stopped: Why there were no more: ``"all_pass"``, ``"none_fails"``, ``"rounds_used"``, ``"deadline"`` or
            ``"upstream_failed"``.
        model_calls: How many calls of models may have been billed.
        copied_texts: Expected texts that were copied into the prompt: it may pass by these alone.
        original: The template as it was sent.
        template_json: The template as the server wrote it, in JSON.
        meta: How the result was produced.
        request_id: The idempotency key of the call.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
        trailers: The metadata at the end of the call, such as what is left of a rate limit.
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
        """Return the messages whose text was changed, in their order."""
        return diff_messages(self.original.get("messages"), self.template.get("messages"))
