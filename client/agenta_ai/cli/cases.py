"""``refine --cases``: one prompt, refined until it passes its test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from agenta_ai.cli import case_files, case_report, exits, streams
from agenta_ai.cli.work import Refinement

if TYPE_CHECKING:
    from agenta_ai import RefinedWithCases, SyncClient
    from agenta_ai.cli.work import Work

_FIELDS = (
    "template", "summary", "improved", "passed_before", "passed_after", "cases", "rounds", "stopped", "model_calls",
    "copied_texts", "meta", "request_id", "call_id",
)  # fmt: skip


def refine_with_cases(name: str, client: SyncClient, work: Work) -> int:
    """Refine a prompt, show how its cases did before and after, and write what the options say.

    Returns:
        The exit code: 1 if a case fails and nothing was better.
    """
    args = work.args
    prompt, cases = work.read(name), case_files.read(args.cases)
    output = work.output_of(name)
    for written, option in ((output, "--output"), (args.report or "", "--report")):
        if written not in ("", "-"):
            streams.check_writable(written, option)
    request_id = str(uuid4()) if args.request_id is None else args.request_id
    with work.screen.waiting("refining") as on_progress, work.running.call(request_id):
        answer = client.refine_prompt_with_cases(
            prompt.template,
            cases,
            guidelines=args.guidelines,
            context=args.context,
            max_rounds=args.rounds,
            repeat=args.repeat,
            pass_at_least=args.pass_at_least,
            max_model_calls=args.max_calls,
            request_id=request_id,
            timeout=args.timeout,
            rerun_if_outcome_unknown=args.rerun_if_outcome_unknown,
            on_progress=on_progress,
        )
    # Each is tried, whatever becomes of the others: the answer has been billed.
    try:
        work.keep(Refinement(prompt, prompt.with_template(answer.template), answer), output)
    finally:
        try:
            if args.report:
                streams.write(args.report, case_report.markdown(answer, name))
        finally:
            _show(work, answer)
    return exits.OK if answer.improved or answer.all_pass else exits.NOT_IMPROVED


def _show(work: Work, answer: RefinedWithCases) -> None:
    args, screen = work.args, work.screen
    if args.json:
        streams.print_json({name: getattr(answer, name) for name in _FIELDS})
        return
    if "-" in (args.output, args.report):
        # Standard output is the prompt, or the report, alone.
        if not screen.quiet:
            streams.note(answer.summary)
    else:
        for line, style in case_report.table(answer):
            screen.line(line, style)
        screen.difference(answer.diff(), args.diff)
        screen.say(answer.summary)
    work.warn(answer)
