"""The result of the tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.cases.search import Stop
from agenta_ai_server.tools.cases.trial import Verdict

if TYPE_CHECKING:
    from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments
    from agenta_ai_server.tools.cases.counting import CountingCompletions
    from agenta_ai_server.tools.cases.search import Found
    from agenta_ai_server.tools.cases.trial import CaseRun, CaseRuns

# So that the largest report stays below the 4 MiB that clients read by default.
MAX_OUTPUT_CHARACTERS, MAX_FAULTS, MAX_SENTENCE_CHARACTERS, MAX_COPIED = 1_500, 5, 300, 20
VERDICTS = Literal["passed", "failed", "unknown"]
# True of the request that failed, and not of the call, whose runs were billed.
_NOTHING_BILLED = " Nothing was billed."
_WHY_STOPPED = {
    Stop.DEADLINE: "There was too little time left for another round before the deadline.",
    Stop.UPSTREAM_FAILED: "There was no further round because of a failure.",
    Stop.NONE_FAILS: "Some cases couldn't be run, and the others pass.",
}


class RunReport(BaseModel):
    """One run of a case."""

    model_config = ConfigDict(extra="forbid")

    passed: Annotated[bool, Field(description="Whether there is an output and it meets the expectations.")]
    output: Annotated[str, Field(description="The model's output, cut after 1,500 characters. Empty if there is none.")]
    faults: Annotated[list[str], Field(description="What is wrong with the output: at most 5 sentences.")]
    failure: Annotated[str, Field(description="Why there is no output. Empty if there is one.")]
    trace_id: Annotated[str, Field(description="The trace of the run in Agenta. Empty if unknown.")]


class CaseResult(BaseModel):
    """The result of a case with one prompt."""

    model_config = ConfigDict(extra="forbid")

    verdict: Annotated[VERDICTS, Field(description="'unknown' if the runs without output could change it.")]
    passes: Annotated[int, Field(ge=0, description="The number of runs that passed.")]
    runs: Annotated[list[RunReport], Field(description="The runs, in the order in which they ended.")]


class CaseReport(BaseModel):
    """The results of a case before and after."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(description="The given name of the case, or its number.")]
    before: Annotated[CaseResult, Field(description="The result with the original prompt.")]
    after: Annotated[
        CaseResult,
        Field(description="The result with the returned prompt. Equal to 'before' if the prompt is unchanged."),
    ]


class RoundReport(BaseModel):
    """One round."""

    model_config = ConfigDict(extra="forbid")

    end: Annotated[
        Literal["taken", "not_better", "made_worse", "incomplete", "rejected"],
        Field(description="What happened to the refinement of this round."),
    ]
    why: Annotated[str, Field(description="The reason, in a sentence.")]
    summary: Annotated[str, Field(description="What the refinement changed. Empty if there was none.")]
    passed: Annotated[int, Field(ge=0, description="The number of cases that passed with it. 0 if they weren't run.")]


class CopiedText(BaseModel):
    """An expected text that is in the new prompt and wasn't in the old one."""

    model_config = ConfigDict(extra="forbid")

    case: Annotated[str, Field(description="The name of the case that expects the text.")]
    text: Annotated[str, Field(description="The expected text.")]


class RefineWithCasesResult(BaseModel):
    """The best prompt, and the results of the cases with it."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptWithCasesResult")

    prompt_template_json: Annotated[
        str, Field(min_length=1, description="The whole template as JSON. The original if nothing was better.")
    ]
    summary: Annotated[str, Field(min_length=1, description="The outcome, in one line.")]
    improved: Annotated[bool, Field(description="Whether a case that failed before passes now.")]
    passed_before: Annotated[int, Field(ge=0, description="The number of cases that passed with the original prompt.")]
    passed_after: Annotated[int, Field(ge=0, description="The number of cases that pass with the returned prompt.")]
    cases: Annotated[
        list[CaseReport], Field(min_length=1, description="The cases, in the order in which they were given.")
    ]
    rounds: Annotated[list[RoundReport], Field(description="The rounds, in order.")]
    stopped: Annotated[
        Literal["all_pass", "none_fails", "rounds_used", "deadline", "upstream_failed"],
        Field(description="The reason why there was no further round."),
    ]
    model_calls: Annotated[int, Field(ge=0, description="The number of model calls that may have been billed.")]
    copied_texts: Annotated[
        list[CopiedText],
        Field(
            description=(
                "Expected texts that the refinement copied into the prompt. Cases may pass only because of them."
            )
        ),
    ]


def outcome(arguments: RefineWithCasesArguments, found: Found, counted: CountingCompletions) -> ToolOutcome:
    """Return the outcome of the call for the result of a search."""
    original, best = found.original, found.best
    result = RefineWithCasesResult(
        prompt_template_json=strict_json.dump(best.draft.prompt.root)
        if found.improved
        else original.draft.prompt.source,
        summary=_summary(found),
        improved=found.improved,
        passed_before=original.trial.passed,
        passed_after=best.trial.passed,
        cases=[
            CaseReport(name=arguments.name_of(index), before=_case(before), after=_case(after))
            for index, (before, after) in enumerate(zip(original.trial.cases, best.trial.cases, strict=True))
        ],
        rounds=[
            RoundReport(end=each.end.value, why=_cut(each.why), summary=_cut(each.summary), passed=each.passed)
            for each in found.rounds
        ],
        stopped=found.stop.value,
        model_calls=counted.calls,
        copied_texts=[
            CopiedText(case=arguments.name_of(each.case), text=_cut(each.text))
            for each in best.draft.copied[:MAX_COPIED]
        ],
    )
    return ToolOutcome(
        result.summary,
        structured=result.model_dump(mode="json"),
        attempts=tuple(counted.attempts),
        warnings=tuple(_warnings(found)),
    )


def _summary(found: Found) -> str:
    before, after, total = found.original.trial.passed, found.best.trial.passed, len(found.original.trial.cases)
    if found.improved:
        return f"{after} of {total} cases pass; {before} passed before. {found.best.draft.summary}"
    if found.stop is Stop.ALL_PASS:
        return f"All {total} cases pass already. The prompt is unchanged."
    tried = "; no refinement was better" if found.rounds else ""
    return f"{before} of {total} cases pass{tried}. The prompt is unchanged."


def _warnings(found: Found) -> list[str]:
    warnings = []
    if why := _WHY_STOPPED.get(found.stop):
        warnings.append(f"{why} {found.why.replace(_NOTHING_BILLED, '')}".strip())
    if unknown := len(found.best.trial.those(Verdict.UNKNOWN)):
        warnings.append(f"It is unknown whether {unknown} cases pass, because runs produced no output.")
    if found.best.draft.copied:
        warnings.append(
            "Expected texts were copied into the prompt, so cases may pass only because of them. See copied_texts, and "
            "test the prompt with other inputs."
        )
    return warnings


def _case(case: CaseRuns) -> CaseResult:
    return CaseResult(verdict=case.verdict.value, passes=case.passes, runs=[_run(run) for run in case.runs])


def _run(run: CaseRun) -> RunReport:
    return RunReport(
        passed=run.passed,
        output=_cut(run.output, MAX_OUTPUT_CHARACTERS),
        faults=[_cut(fault) for fault in run.faults[:MAX_FAULTS]],
        failure=_cut(run.failure),
        trace_id=run.trace_id,
    )


def _cut(text: str, most: int = MAX_SENTENCE_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
