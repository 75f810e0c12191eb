"""What the refining model is told about the cases: which fail, how, and why earlier attempts were rejected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agenta_ai_server.tools.cases.trial import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments
    from agenta_ai_server.tools.cases.trial import Trial

# As for the context of refine_prompt.
MAX_CONTEXT_CHARACTERS = 10_000
MAX_REJECTIONS_CHARACTERS = 1_500
# Of one case: its inputs, what is expected, its remark, the output, and what is wrong with it. With less room than this
# for each, a model would learn nothing, and is told of fewer cases.
FIELDS, MIN_CASE_CHARACTERS = 5, 500
NAME_CHARACTERS, LABEL_CHARACTERS = 80, 150
INSTRUCTIONS = (
    "The prompt is tested with cases. The context lists those that fail, what the model wrote and what is wrong with "
    "it. Change the prompt so that these cases pass and all others still do. State general rules that also hold for "
    "other inputs, and do not copy the inputs or the expected outputs of cases into the prompt."
)


def guidelines(arguments: RefineWithCasesArguments) -> str:
    """Return what the refinement should achieve."""
    return f"{arguments.guidelines or ''}\n\n{INSTRUCTIONS}".strip()


def context(arguments: RefineWithCasesArguments, trial: Trial, rejections: Sequence[str]) -> str:
    """Return what the refinement should know, at most ``MAX_CONTEXT_CHARACTERS``.

    Args:
        arguments: The cases, and what their caller says about the prompt.
        trial: The results of the cases with the prompt to be refined.
        rejections: Why earlier refinements were rejected, in sentences.
    """
    given = f"{arguments.context}\n\n" if arguments.context else ""
    rejected = "".join(f"\n- {sentence}" for sentence in rejections)[-MAX_REJECTIONS_CHARACTERS:]
    if rejected:
        rejected = f"\n\nRefinements that were rejected:{rejected}"
    failing = trial.those(Verdict.FAILED)
    heading = f"Test cases that fail with this prompt, {len(failing)} of {len(trial.cases)}:"
    left = MAX_CONTEXT_CHARACTERS - len(given) - len(rejected) - len(heading)
    shown = failing[: left // MIN_CASE_CHARACTERS]
    most = (left // len(shown) - LABEL_CHARACTERS) // FIELDS
    cases = "".join(_case(arguments, trial, index, most) for index in shown)
    return f"{given}{heading}{cases}{rejected}"


def _case(arguments: RefineWithCasesArguments, trial: Trial, index: int, most: int) -> str:
    case = arguments.cases[index]
    run = next(run for run in trial.cases[index].runs if run.faults)
    remark = f"\nRemark: {' '.join(_cut(case.remark, most).split())}" if case.remark else ""
    return (
        f"\n\nCase {_cut(arguments.name_of(index), NAME_CHARACTERS)}"
        f"\nInputs: {_cut(_as_json(case.inputs), most)}"
        f"\nExpected: {_cut(_as_json(case.expected.model_dump(exclude_unset=True)), most)}{remark}"
        f"\nOutput: {_cut(run.output, most)}"
        f"\nWrong: {_cut(' '.join(run.faults), most)}"
    )


def _as_json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
