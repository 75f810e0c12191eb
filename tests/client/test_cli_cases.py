"""``refine --cases``: how cases are read, what is shown and written, and the exit code."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agenta_ai import InvalidInput, RefinedWithCases, SyncClient, ToolFailed, ToolResult, Verdict, cli
from agenta_ai.cases import CaseReport, CaseResult, CaseRun, CopiedText, RefinementRound
from agenta_ai.cli import case_files, case_report, exits
from agenta_ai.codec import from_struct
from agenta_ai.responses import read_refined_with_cases
from agenta_ai.testing import FakeClient, FakeSyncClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import FakeServer

    from agenta_ai.v1 import tool_service_pb2 as pb

OLD = {"messages": [{"role": "user", "content": "Sort {{message}}"}]}
NEW = {"messages": [{"role": "user", "content": "Sort {{message}}. Use one word."}]}
CASES: Any = [
    {"inputs": {"message": "a"}, "expected": {"equals": "A"}, "name": "first"},
    {"inputs": {"message": "b"}, "expected": {"contains_all": ["B"]}},
]


def run(passed: bool, output: str = "", failure: str = "", *faults: str) -> dict[str, Any]:
    return {"passed": passed, "output": output, "faults": list(faults), "failure": failure, "trace_id": "ab"}


def case(verdict: str, *runs: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": verdict, "passes": sum(each["passed"] for each in runs), "runs": list(runs)}


def content(*, improved: bool, all_pass: bool = True) -> dict[str, Any]:
    wrong = case("failed", run(False, "It is a|b.\n", "", 'Must be "A".'))
    right = case("passed", run(True, "A"))
    lost = case("unknown", run(False, "", "UPSTREAM_TIMEOUT: No answer."))
    after = right if improved else wrong
    return {
        "prompt_template_json": json.dumps(NEW if improved else OLD),
        "summary": "It is better." if improved else "Nothing was better.",
        "improved": improved,
        "passed_before": 1,
        "passed_after": 1 + improved if all_pass else int(improved),
        "cases": [
            {"name": "first", "before": wrong, "after": after},
            {"name": "case 2", "before": right if all_pass else lost, "after": right if all_pass else lost},
        ],
        "rounds": [{"end": "taken", "why": "2 of 2 cases passed with it.", "summary": "Shorter.", "passed": 2}],
        "stopped": "all_pass",
        "model_calls": 5,
        "copied_texts": [{"case": "first", "text": "A`B"}],
    }


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.json").write_text(json.dumps(OLD))
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(each) + "\n" for each in CASES))
    return tmp_path


@pytest.fixture
def answers(server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> Callable[[dict[str, Any]], None]:
    def answers(structured: dict[str, Any]) -> None:
        meta = {"warnings": ["Expected texts were copied."]}
        server.answers(answer(content=[{"text": "x"}], structuredContent=structured, meta=meta))

    return answers


def refine(server: FakeServer, *words: str) -> int:
    return cli.main(["refine", "prompt.json", "--cases", "cases.jsonl", "--target", server.target, *words])


def test_a_table_before_and_after(
    server: FakeServer, answers: Any, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(content(improved=True))
    words = ["-g", "Short.", "--rounds", "3", "--repeat", "2", "--pass-at-least", "1", "--max-calls", "50", "-i"]
    assert refine(server, *words) == 0
    out, err = capsys.readouterr()
    assert out.split("\n") == [
        "case    before  after",
        "first   failed  passed",
        '  before: It is a|b. Must be "A".',
        "  after:  A",
        "case 2  passed  passed",
        "--- old messages[0] user",
        "+++ new messages[0] user",
        "@@ -1 +1 @@",
        "-Sort {{message}}",
        "+Sort {{message}}. Use one word.",
        "It is better.",
        "",
    ]
    assert err == "warning: Expected texts were copied.\n"
    assert json.loads((files / "prompt.json").read_text()) == NEW
    (request,) = server.service.requests
    assert agenta_arguments(request) == {
        "prompt_template_json": json.dumps(OLD),
        "cases": CASES,
        "guidelines": "Short.",
        "context": "",
        "max_rounds": 3,
        "repeat": 2,
        "pass_at_least": 1,
        "max_model_calls": 50,
    }
    assert 290 < server.service.time_remaining[0] <= 300


def agenta_arguments(request: Any) -> dict[str, Any]:
    return from_struct(request.arguments)


def test_nothing_improved(server: FakeServer, answers: Any, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(content(improved=False, all_pass=False))
    assert refine(server) == 1
    assert capsys.readouterr().out.split("\n")[:6] == [
        "case    before   after",
        "first   failed   failed",
        '  It is a|b. Must be "A".',
        "case 2  unknown  unknown",
        "  UPSTREAM_TIMEOUT: No answer.",
        "Nothing was better.",
    ]


def test_all_pass_already(server: FakeServer, answers: Any, files: Path) -> None:
    passed = case("passed", run(True, "A"))
    found = content(improved=False) | {"cases": [{"name": "first", "before": passed, "after": passed}]}
    answers(found)
    assert refine(server, "--quiet") == 0


def test_for_scripts(server: FakeServer, answers: Any, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(content(improved=False))
    assert refine(server, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["cases"][0]["before"]["runs"][0]["faults"] == ['Must be "A".']
    assert (printed["improved"], printed["template"], printed["model_calls"]) == (False, OLD, 5)


def test_a_report_for_a_pull_request(
    server: FakeServer, answers: Any, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(content(improved=True))
    assert refine(server, "--report", "report.md", "--quiet") == 0
    assert capsys.readouterr().out == ""
    report = (files / "report.md").read_text()
    assert report == (
        "## ` prompt.json `: 2 of 2 cases pass\n\nIt is better.\n\n"
        "| case | before | after |\n| --- | --- | --- |\n| first | failed | passed |\n| case 2 | passed | passed |\n\n"
        "**first**\n\n"
        '- before: ` It is a|b. ` Must be "A".\n- after: ` A `\n\n'
        "Rounds:\n\n1. 2 of 2 cases passed with it.\n\n"
        "The prompt now has the text that first expects: `` A`B ``\n\n"
        "```diff\n--- old messages[0] user\n+++ new messages[0] user\n@@ -1 +1 @@\n"
        "-Sort {{message}}\n+Sort {{message}}. Use one word.\n```\n\n"
        "5 model calls. A case that passed once may fail another time.\n"
    )
    assert refine(server, "--report", "-") == 0
    out, err = capsys.readouterr()
    assert out == report
    assert err.startswith("It is better.\n")


def test_markdown_of_texts_stays_text() -> None:
    hostile = "</table> | ```\n# <img src=x> **"
    result = CaseResult(Verdict.FAILED, 0, (CaseRun(False, hostile, (hostile,)),))
    refined = RefinedWithCases(
        NEW,
        hostile,
        cases=(CaseReport(hostile, result, result),),
        rounds=(RefinementRound("not_better", hostile),),
        copied_texts=(CopiedText(hostile, hostile),),
        original={"messages": [{"role": "user", "content": "```\n" + hostile}]},
    )
    lines = case_report.markdown(refined, hostile).split("\n")
    outside = [line for line in lines[: lines.index("````diff")] if "````" not in line]
    assert not [line for line in outside if line.startswith(("#", "<")) and not line.startswith("## ````")]
    assert len([line for line in lines if line.startswith("|")]) == 3


def test_a_table_without_cases() -> None:
    assert list(case_report.table(RefinedWithCases(NEW))) == [("case  before  after", "bold")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--check"], "can't be combined with --check"),
        (["--report", "-", "--json"], "--report - can't share standard output"),
        (["--cases", "missing.jsonl"], "Cannot read missing.jsonl"),
        (["--report", "no/such/report.md"], "Cannot write no/such/report.md"),
    ],
)
def test_wrong_usage(
    words: list[str], sentence: str, server: FakeServer, answers: Any, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(content(improved=True))
    assert refine(server, *words) == 2
    assert sentence in capsys.readouterr().err
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("arguments.max_model_calls: Raise arguments.max_model_calls.", "--max-calls: Raise --max-calls."),
        ("arguments.pass_at_least: Must be at most repeat.", "--pass-at-least: Must be at most repeat."),
        ("arguments.max_rounds: Too many; arguments.repeat: Too many.", "--rounds: Too many; --repeat: Too many."),
        ("arguments.cases[7].expected.pattern: No.", "case 8 of --cases, expected.pattern: No."),
        ("arguments.cases[0]: No inputs.", "case 1 of --cases: No inputs."),
        ("arguments.guidelines: Too long.", "--guidelines: Too long."),
        ("The refinement lost {{max_rounds}}, {{context}}.", "The refinement lost {{max_rounds}}, {{context}}."),
        ("arguments.cases[0].inputs.arguments.repeat: No.", "case 1 of --cases, inputs.arguments.repeat: No."),
    ],
)
def test_refusals_name_options(said: str, shown: str) -> None:
    assert exits.as_options(said) == shown


def test_it_is_for_one_prompt(server: FakeServer, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "more.json").write_text(json.dumps(OLD))
    words = ["refine", "prompt.json", "more.json", "--cases", "cases.jsonl", "--target", server.target]
    assert cli.main(words) == 2
    assert "--cases is for one prompt" in capsys.readouterr().err


def test_its_options_need_cases(server: FakeServer, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "prompt.json", "--rounds", "2", "--target", server.target]) == 2
    assert "belong to --cases" in capsys.readouterr().err


def test_cases_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "cases.csv"
    file.write_text(
        "\ufeffname,message,inputs.name,expected.contains_all,expected.json_contains,expected.max_characters,remark\n"
        'first,"a, b",Ann,x | y,"{""a"": 1}",7,Be short.\n'
        ",c,,z,,,\n"
    )
    assert case_files.read(str(file)) == [
        {
            "name": "first",
            "inputs": {"message": "a, b", "name": "Ann"},
            "expected": {"contains_all": ["x", "y"], "json_contains": {"a": 1}, "max_characters": 7},
            "remark": "Be short.",
        },
        {"inputs": {"message": "c", "name": ""}, "expected": {"contains_all": ["z"]}},
    ]


def test_agentas_own_test_sets(tmp_path: Path) -> None:
    file = tmp_path / "cases.CSV"
    file.write_text("country,correct_answer\nFrance,Paris\n")
    assert case_files.read(str(file)) == [{"inputs": {"country": "France"}, "expected": {"equals": "Paris"}}]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("c.jsonl", "\n", "contains no cases"),
        ("c.jsonl", '{"inputs": {}}\n\n{"a": \n', "line 3 is not JSON"),
        ("c.jsonl", "[]\n", "line 1 is not an object"),
        ("c.csv", "a,b\n", "contains no cases"),
        ("c.csv", "a,b\n1\n", "line 2 doesn't have one cell"),
        ("c.csv", "a,b\n1,2,3\n", "line 2 doesn't have one cell"),
        ("c.csv", "a,expected.is\n1,2\n", "has the column expected.is. Known columns of this kind: expected.equals"),
        (
            "c.csv",
            "a,expected.max_characters\n1,few\n",
            "line 2 has something other than JSON in the column expected.max_characters",
        ),
    ],
)
def test_files_that_hold_no_cases(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InvalidInput) as wrong:
        case_files.read(str(file))
    assert sentence in str(wrong.value)


def test_python(server: FakeServer, answers: Any) -> None:
    answers(content(improved=True))
    with SyncClient(server.target, timeout=400) as client:
        refined = client.refine_prompt_with_cases(OLD, CASES, repeat=2)
    assert refined.template == NEW
    assert refined.original == OLD
    assert refined.cases[0].before.verdict is Verdict.FAILED
    assert refined.cases[0].before.runs == (CaseRun(False, "It is a|b.\n", ('Must be "A".',), "", "ab"),)
    assert refined.copied_texts == (CopiedText("first", "A`B"),)
    assert refined.all_pass
    assert [change.index for change in refined.diff()] == [0]
    assert server.service.time_remaining[0] > 390, "the client's own time-out is longer"


async def test_asyncio_and_tests_of_others() -> None:
    given = RefinedWithCases(NEW, improved=True)
    async with FakeClient(given) as client:
        refined = await client.refine_prompt_with_cases(OLD, iter(CASES), timeout=7)
        assert (refined.original, refined.improved) == (OLD, True)
        assert refined.request_id == client.calls[0].request_id
        assert (client.calls[0].name, client.calls[0].timeout) == ("tools.agenta.api.refine_prompt_with_cases", 7)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        *(
            content(improved=True) | change
            for change in (
                {"cases": 3},
                {"cases": [{"name": 3, "before": case("passed"), "after": case("passed")}]},
                {"cases": [{"name": "", "before": case("passed", run(True, 3)), "after": case("passed")}]},  # type: ignore[arg-type]
                {"rounds": [{"end": "taken", "why": None, "summary": "", "passed": 2}]},
                {"summary": 3},
                {"prompt_template_json": "[]"},
            )
        ),
    ],
)
def test_an_answer_of_another_form(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is not a refinement"):
        read_refined_with_cases(ToolResult(structured_content=wrong), OLD)


def test_what_cannot_be_sent() -> None:
    with FakeSyncClient() as client, pytest.raises(InvalidInput, match="cases: each must be a mapping"):
        client.refine_prompt_with_cases(OLD, ["case"])  # type: ignore[list-item]


def test_a_tool_that_failed(server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> None:
    server.answers(answer(isError=True, content=[{"text": "No."}], error={"reason": "ERROR_REASON_UPSTREAM_TIMEOUT"}))
    with SyncClient(server.target) as client, pytest.raises(ToolFailed):
        client.refine_prompt_with_cases(OLD, CASES)


def test_cases_from_standard_input(server: FakeServer, answers: Any, files: Path, monkeypatch: Any) -> None:
    answers(content(improved=True))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(CASES[0]).encode())))
    assert cli.main(["refine", "prompt.json", "--cases", "-", "--target", server.target, "-q"]) == 0
    assert agenta_arguments(server.service.requests[0])["cases"] == CASES[:1]
