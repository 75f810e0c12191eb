"""What came of a refinement against test cases: a table for a terminal, and Markdown for a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai import CaseReport, CaseResult, RefinedWithCases

_COLUMNS = ("case", "before", "after")
_NAME_CHARACTERS, _OUTPUT_CHARACTERS = 40, 160
_BACKTICKS = re.compile(r"`+")


def table(refined: RefinedWithCases) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table, each with the name of its style: what changed, and what still fails, in detail."""
    width = max(map(len, [_COLUMNS[0], *(_short(case.name, _NAME_CHARACTERS) for case in refined.cases)]))
    words = max(map(len, [_COLUMNS[1], *(_word(case.before) for case in refined.cases)]))
    yield f"{_COLUMNS[0]:{width}}  {_COLUMNS[1]:{words}}  {_COLUMNS[2]}", "bold"
    for case in refined.cases:
        before, after = _word(case.before), _word(case.after)
        yield f"{_short(case.name, _NAME_CHARACTERS):{width}}  {before:{words}}  {after}", _style(case)
        if case.before.verdict != case.after.verdict:
            yield from ((f"  before: {text}", "") for text in _details(case.before))
            yield from ((f"  after:  {text}", "") for text in _details(case.after))
        elif case.after.verdict != "passed":
            yield from ((f"  {text}", "") for text in _details(case.after))


def markdown(refined: RefinedWithCases, name: str) -> str:
    """Return the report as Markdown.

    Args:
        refined: What came back.
        name: Of the prompt's file.
    """
    lines = [
        f"## {_code(name)}: {refined.passed_after} of {len(refined.cases)} cases pass",
        "",
        _escaped(refined.summary),
        "",
        "| case | before | after |",
        "| --- | --- | --- |",
        *(f"| {_escaped(case.name)} | {_word(case.before)} | {_word(case.after)} |" for case in refined.cases),
    ]
    for case in refined.cases:
        if case.before.verdict != "passed" or case.after.verdict != "passed":
            lines += ["", f"**{_escaped(case.name)}**", "", *_markdown_of(case)]
    if refined.rounds:
        lines += ["", "Rounds:", ""]
        lines += [f"{number}. {_escaped(each.why)}" for number, each in enumerate(refined.rounds, 1)]
    for copied in refined.copied_texts:
        lines += ["", f"The prompt now has the text that {_escaped(copied.case)} expects: {_code(copied.text)}"]
    difference = "\n".join(line for change in refined.diff() for line in change.lines())
    if difference:
        fence = "`" * max(3, 1 + max((len(found) for found in _BACKTICKS.findall(difference)), default=0))
        lines += ["", f"{fence}diff", difference, fence]
    lines += ["", f"{refined.model_calls} model calls. A case that passed once may fail another time."]
    return "\n".join(lines) + "\n"


def _markdown_of(case: CaseReport) -> Iterator[str]:
    for when, result in (("before", case.before), ("after", case.after)):
        for run in result.runs:
            faults = " ".join(_escaped(fault) for fault in run.faults)
            yield f"- {when}: {_escaped(run.failure) or _code(run.output)} {faults}".rstrip()


def _details(result: CaseResult) -> Iterator[str]:
    """Yield what was written and what is wrong with it, once for each output."""
    seen = set()
    for run in result.runs:
        text = run.failure or " ".join([_short(run.output, _OUTPUT_CHARACTERS), *run.faults])
        if text not in seen:
            seen.add(text)
            yield text


def _word(result: CaseResult) -> str:
    return f"{result.verdict} {result.passes}/{len(result.runs)}" if len(result.runs) > 1 else result.verdict


def _style(case: CaseReport) -> str:
    return {"passed": "green", "failed": "red"}.get(case.after.verdict, "cyan")


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _escaped(text: str) -> str:
    """Return a text as one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    line = _short(text, _OUTPUT_CHARACTERS)
    ticks = "`" * (1 + max((len(found) for found in _BACKTICKS.findall(line)), default=0))
    return f"{ticks} {line} {ticks}" if line else "nothing"
