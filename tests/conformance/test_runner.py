"""The runner itself: it must see every lie of a client, survive every breakdown, and name the faults of a vector."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conformance import liar
from conformance.clients import Client
from conformance.matching import ABSENT, differences, fault_of
from conformance.program import Program, ProgramError
from conformance.report import Outcome, failures, table
from conformance.runner import main, run
from conformance.vectors import HERE, Server, Vector, VectorError, load

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = {"$json": {"messages": [{"role": "user", "content": "Please translate {{text}}"}]}}
CALL = {"name": "tools.agenta.api.refine_prompt", "arguments": {"prompt_template_json": TEMPLATE}}
VECTOR = Vector.model_validate_json(
    json.dumps(
        {
            "name": "truth",
            "why": "One call that is answered, and one that is refused.",
            "calls": [
                {
                    "request": CALL,
                    "expect": {
                        "code": "OK",
                        "response": {"isError": {"$absent": True}, "content": [{}]},
                        "native": {"messages": [{"content": "Translate {{text}}"}]},
                        "metadata": {"x-request-id": {"$match": "[0-9a-f]{32}"}},
                        "seconds": {"$between": [0, 30]},
                    },
                },
                {
                    "request": {"name": "tools.x.y.z"},
                    "expect": {
                        "code": "NOT_FOUND",
                        "reason": "TOOL_NOT_FOUND",
                        "message": {"$match": ".*ListTools.*"},
                        "details": {"ResourceInfo": {"resourceName": "tools.x.y.z"}},
                    },
                },
            ],
            "arrivals": 1,
        }
    )
)
PLAIN = {"plain": Server(why="")}


async def played(what: str, *vectors: Vector, limit: float = 30) -> list[Outcome]:
    return await run([sys.executable, "-m", "conformance.liar", what], vectors or [VECTOR], PLAIN, limit=limit)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))


async def test_the_truth_is_believed() -> None:
    (outcome,) = await played("nothing")
    assert outcome.wrong == []


# What the program lies about, and what the runner says of it.
SEEN = {
    "code": [
        'call 1: code: expected "OK", got "UNKNOWN"',
        "call 1: response: must be there exactly if the code is OK, which is UNKNOWN",
        'call 2: code: expected "NOT_FOUND", got "UNKNOWN"',
    ],
    "message": [
        'call 1: message: expected "", got "All is well."',
        'call 2: message: expected a text like .*ListTools.*, got "All is well."',
    ],
    "no-details": [
        "call 2: details.ErrorInfo: expected an object, got nothing",
        "call 2: details.RequestInfo: expected an object, got nothing",
        "call 2: details.ResourceInfo: expected an object, got nothing",
    ],
    "a-detail-less": ["call 2: details.ErrorInfo: expected an object, got nothing"],
    "a-detail-more": [
        'call 1: details.Help: not expected: {"@type": "type.googleapis.com/google.rpc.Help"}',
        'call 2: details.Help: not expected: {"@type": "type.googleapis.com/google.rpc.Help"}',
    ],
    "a-detail-twice": [
        "call 2: details.ErrorInfo: is there twice",
        "call 2: details.ResourceInfo: is there twice",
        "call 2: details.RequestInfo: is there twice",
    ],
    "another-reason": ['call 2: details.ErrorInfo.reason: expected "ERROR_REASON_TOOL_NOT_FOUND", got "X"'],
    "response": [
        "call 1: native: must be there exactly if there is structured content",
        "call 1: response.isError: expected nothing, got true",
        "call 1: response.content: expected a list, got nothing",
    ],
    "no-response": ["call 1: response: must be there exactly if the code is OK, which is OK"],
    "native": ["call 1: native.messages: expected a list, got nothing"],
    "no-native": [
        "call 1: native: must be there exactly if there is structured content",
        "call 1: native: expected an object, got nothing",
    ],
    "no-metadata": ["call 1: metadata.x-request-id: expected a text like [0-9a-f]{32}, got nothing"],
    "no-seconds": ["call 1: the result's seconds: Field required", "call 2: the result's seconds: Field required"],
    "more-fields": [f"call {number}: the result's mood: Extra inputs are not permitted" for number in (1, 2)],
    "error": [f"call {number}: the program can't do it: I can't." for number in (1, 2)],
    "calls-twice": ["arrivals: expected 1, got 2"],
}
# What is told with more words than a test should repeat.
PARTLY_SEEN = {
    "a-detail-of-no-type": "details.ErrorInfo: is no JSON of its type: ",
    "response-that-is-none": "call 1: response: is no JSON of its type: ",
    "seconds": "call 1: seconds: the program says 1000.0, and answered after ",
    "id": "the program wrote something else than the result of first: ",
    "garbage": "the program wrote no JSON: b'{",
    "talks-first": "the program wrote no JSON: b'Hello.",
    "talks-last": "the program wrote more than it was asked: b'Goodbye.",
    "ends-badly": "the program ended with code 3",
}


@pytest.mark.parametrize("what", SEEN)
async def test_lies_are_seen(what: str) -> None:
    (outcome,) = await played(what)
    assert outcome.wrong == SEEN[what]


@pytest.mark.parametrize("what", PARTLY_SEEN)
async def test_what_is_no_answer_is_seen(what: str) -> None:
    (outcome,) = await played(what)
    assert PARTLY_SEEN[what] in "\n".join(outcome.wrong)


# What is said of the outcome of a call that expects one.
OUTCOMES = {
    "outcome": ["call 2: outcome.not_run: expected true, got false"],
    "no-outcome": ["call 2: outcome: expected an object, got nothing"],
}


@pytest.mark.parametrize("what", OUTCOMES)
async def test_an_outcome_is_compared(what: str) -> None:
    raw = VECTOR.model_dump(mode="json", exclude_unset=True)
    raw["calls"][1]["expect"]["outcome"] = {"not_run": True}
    (outcome,) = await played(what, Vector.model_validate_json(json.dumps(raw)))
    assert outcome.wrong == OUTCOMES[what]


# What is said of the progress of a call.
PROGRESS = {
    "nothing": [],
    "progress": [
        'call 1: progress: expected, after what was expected before it, {"stage": "PROGRESS_STAGE_STARTED"}, '
        'got [{"stage": "PROGRESS_STAGE_QUEUED", "text": "Later."}]'
    ],
    "progress-that-is-none": ["call 1: progress: is no JSON of its type: "],
    "no-progress": [
        "call 1: progress: must be there exactly if the method is CallToolStream, and it is CallToolStream"
    ],
}


@pytest.mark.parametrize("what", PROGRESS)
async def test_progress_is_compared(what: str) -> None:
    raw = VECTOR.model_dump(mode="json", exclude_unset=True)
    progress = {"$in_order": [{"stage": "PROGRESS_STAGE_STARTED"}]}
    raw["calls"] = [{**raw["calls"][0], "method": "CallToolStream", "expect": {"code": "OK", "progress": progress}}]
    (outcome,) = await played(what, Vector.model_validate_json(json.dumps(raw)))
    assert len(outcome.wrong) == len(PROGRESS[what])
    assert all(map(str.startswith, outcome.wrong, PROGRESS[what]))


async def test_progress_of_a_single_answer_is_seen() -> None:
    (outcome,) = await played("progress")
    told = "progress: must be there exactly if the method is CallToolStream, and it is CallTool"
    assert outcome.wrong == [f"call 1: {told}", f"call 2: {told}"]


def test_streams_are_played_by_programs_that_know_them() -> None:
    call = {"method": "CallToolStream", "expect": {"code": "OK"}}
    vector = Vector.model_validate_json(json.dumps({"name": "x", "why": "It is.", "calls": [call]}))
    assert Client(folder=".", run="").playable([VECTOR, vector]) == [VECTOR]
    assert Client(folder=".", run="", streams=True).playable([VECTOR, vector]) == [VECTOR, vector]


@pytest.mark.parametrize("change", [{"retries": False}, {"close_after": 1}, {"expect": {"code": "OK", "outcome": {}}}])
def test_outcomes_are_played_by_programs_that_report_them(change: dict[str, Any]) -> None:
    call = {"request": {}, "expect": {"code": "OK"}, **change}
    raw = {"name": "x", "why": "It is.", "calls": [call]}
    vector = Vector.model_validate_json(json.dumps(raw))
    assert Client(folder=".", run="").playable([VECTOR, vector]) == [VECTOR]
    assert Client(folder=".", run="", outcomes=True).playable([VECTOR, vector]) == [VECTOR, vector]


def test_every_lie_is_tested() -> None:
    assert liar.LIES.keys() - {"nothing"} <= SEEN.keys() | PARTLY_SEEN.keys() | OUTCOMES.keys() | PROGRESS.keys()


async def test_a_program_that_dies_leaves_its_last_words() -> None:
    second = VECTOR.model_copy(update={"name": "again"})
    # Each vector gets a program of its own after that.
    for outcome in await played("dies", VECTOR, second):
        assert outcome.wrong[0] == "the program ended with code 9 in place of an answer"
        assert outcome.wrong[-1] == "  stderr: I feel unwell."


async def test_a_program_that_hangs_is_ended() -> None:
    (outcome,) = await played("hangs", limit=0.2)
    assert outcome.wrong[0] == "the program wrote nothing within 0.2 seconds"


async def test_a_program_that_is_not_there() -> None:
    (outcome,) = await run(["./nowhere"], [VECTOR], PLAIN)
    assert "No such file" in outcome.wrong[0]


async def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.program.END_SECONDS", 0.2)
    program = await Program([sys.executable, "-c", "import time; time.sleep(600)"], HERE).start()
    assert await program.stop() == "the program didn't end within 0.2 seconds after its input"


async def test_a_line_of_megabytes() -> None:
    echo = "import json, sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    program = await Program([sys.executable, "-c", echo], HERE).start()
    call = {"id": "1", "text": "x" * (5 << 20)}
    assert await program.ask(call, 30) == call
    assert await program.stop() == ""


async def test_after_its_end_a_program_is_no_use() -> None:
    program = await Program([sys.executable, "-c", ""], HERE).start()
    with pytest.raises(ProgramError, match="ended with code 0 in place of an answer"):
        await program.ask({"id": "1"}, 30)
    await asyncio.wait_for(program.kill(), 10)


TELLS_TRUTH, LIES = "python -m conformance.liar nothing", "python -m conformance.liar code"
UNKNOWN_PROGRAM = {"nowhere-to-be-found": "https://example.com"}


@pytest.mark.parametrize(
    ("client", "ci", "code", "said"),
    [
        (Client(folder=".", run=TELLS_TRUTH), "", 0, "theme  1 ok\n"),
        (Client(folder=".", run=LIES), "", 1, "other: theme: truth\n"),
        (Client(folder=".", run=TELLS_TRUTH, build=("true",)), "", 0, "theme  1 ok\n"),
        (
            Client(folder=".", run=TELLS_TRUTH, build=("true", "ls nowhere")),
            "",
            1,
            "other can't be built: ls nowhere\n",
        ),
        (
            Client(folder=".", run=TELLS_TRUTH, needs=UNKNOWN_PROGRAM),
            "",
            0,
            "other is left out, for lack of nowhere-to",
        ),
        (
            Client(folder=".", run=TELLS_TRUTH, needs=UNKNOWN_PROGRAM),
            "1",
            1,
            "other is left out, for lack of nowhere-to",
        ),
    ],
)
def test_the_command(
    client: Client, ci: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vector = VECTOR.model_copy(update={"theme": "theme"})
    monkeypatch.setattr("conformance.runner.load", lambda: ([vector], PLAIN))
    monkeypatch.setattr("conformance.runner.clients", lambda: {"other": client})
    monkeypatch.setattr("sys.argv", ["conformance"])
    monkeypatch.setenv("CI", ci)
    assert main() == code
    assert said in capsys.readouterr().out


def outcome(theme: str, *wrong: str) -> Outcome:
    return Outcome(VECTOR.model_copy(update={"theme": theme}), wrong)


def test_steps_are_made_of_calls_that_meet() -> None:
    ok = {"code": "OK"}
    calls = [{"times": 2, "expect": ok}, {"during": True, "expect": ok}, {"method": "Status", "expect": ok}]
    vector = Vector.model_validate_json(json.dumps({"name": "x", "why": "It is.", "calls": calls}))
    assert [[call.method for call in step] for step in vector.steps] == [
        ["CallTool"],
        ["CallTool", "CallTool"],
        ["Status"],
    ]


def test_the_report() -> None:
    outcomes = {
        "one": [outcome("a"), outcome("b", "call 1: code: expected …")],
        "two": [outcome("a"), outcome("b")],
    }
    assert table(outcomes).splitlines() == [
        "     one     two",
        "a    1 ok    1 ok",
        "b    0 of 1  1 ok",
        "all  1 of 2  2 ok",
    ]
    assert failures(outcomes).splitlines() == [
        "",
        "one: b: truth",
        "  One call that is answered, and one that is refused.",
        "  - call 1: code: expected …",
    ]


# Expected, what came, and the differences.
COMPARED: list[tuple[Any, Any, list[str]]] = [
    (1, 1.0, []),
    (1, True, ["x: expected 1, got true"]),
    (True, 1, ["x: expected true, got 1"]),
    ("1", 1, ['x: expected "1", got 1']),
    (None, None, []),
    (None, ABSENT, ["x: expected null, got nothing"]),
    ({"$absent": True}, ABSENT, []),
    ({"$absent": True}, None, ["x: expected nothing, got null"]),
    ({"a": 1}, {"a": 1, "b": 2}, []),
    ({"a": {"$absent": True}}, {"a": None}, ["x.a: expected nothing, got null"]),
    ({"$exactly": {"a": {"c": 1}}}, {"a": {"c": 1, "d": 2}}, ["x.a.d: not expected: 2"]),
    ([1, 2], [2, 1], ["x[0]: expected 1, got 2", "x[1]: expected 2, got 1"]),
    ([1], [1, 2], ["x: expected 1, got 2: [1, 2]"]),
    ([], {}, ["x: expected a list, got {}"]),
    ({}, [], ["x: expected an object, got []"]),
    ({"$between": [1, 2]}, "1.5s", []),
    ({"$between": [1, 2]}, "2", []),
    ({"$between": [1, 2]}, 2.1, ["x: expected a number from 1 to 2, got 2.1"]),
    ({"$between": [0, 2]}, True, ["x: expected a number from 0 to 2, got true"]),
    ({"$between": [0, 2]}, "soon", ['x: expected a number from 0 to 2, got "soon"']),
    ({"$match": "a.c"}, "a\nc", []),
    ({"$match": "a.c"}, "abcd", ['x: expected a text like a.c, got "abcd"']),
    ({"$repeat": ["ab", 2]}, "abab", []),
    ({"$repeat": ["ab", 2]}, "aba", ['x: expected 2 times "ab", got "aba"']),
    ({"$in_order": [1, {"a": 1}]}, [0, 1, 2, {"a": 1, "b": 2}, 3], []),
    ({"$in_order": [1, 2]}, [2, 1], ["x: expected, after what was expected before it, 2, got [2, 1]"]),
    ({"$in_order": [1]}, 1, ["x: expected a list, got 1"]),
    ({"$json": {"a": [1]}}, '{"a": [1], "b": 2}', []),
    ({"$exactly": {"$json": {"a": 1}}}, '{"a": 1, "b": 2}', ["x, read.b: not expected: 2"]),
    ({"$json": 1}, "one", ['x: expected a text of JSON, got "one"']),
]


@pytest.mark.parametrize(("expected", "actual", "found"), COMPARED)
def test_comparing(expected: Any, actual: Any, found: list[str]) -> None:
    assert list(differences(expected, actual, "x")) == found


@pytest.mark.parametrize(
    ("expected", "fault"),
    [
        ({"a": [{"$match": "("}]}, "$match: "),
        ({"$mtach": "x"}, "$mtach is unknown"),
        ({"$match": "x", "a": 1}, "$match is unknown, stands beside other keys"),
        ({"$between": [1]}, "$between"),
        ({"$absent": False}, "$absent"),
        ({"$exactly": {"$nothing": 1}}, "$nothing"),
        ({"$in_order": []}, "$in_order"),
        ({"$in_order": [{"$nothing": 1}]}, "$nothing"),
    ],
)
def test_expectations_that_expect_nothing(expected: Any, fault: str) -> None:
    assert fault in str(fault_of(expected))


GOOD = {"name": "one", "why": "It must be.", "calls": [{"method": "Status", "expect": {"code": "OK"}}]}


def folder(path: Path, *vectors: dict[str, Any], **servers: Any) -> Path:
    (path / "theme.json").write_text(json.dumps({"vectors": vectors}))
    (path / "servers.json").write_text(json.dumps({"servers": servers or {"plain": {"why": "It is."}}}))
    return path


def test_a_folder_is_read(tmp_path: Path) -> None:
    (vector,), servers = load(folder(tmp_path, GOOD))
    assert (vector.name, vector.theme, vector.server, list(servers)) == ("one", "theme", "plain", ["plain"])


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"expct": {}}, "theme.json: vectors[0].expct: is unknown"),
    ({"name": "One two"}, "theme.json: vectors[0].name: String should match"),
    ({"why": "because"}, "theme.json: vectors[0].why: String should match"),
    ({"calls": []}, "theme.json: vectors[0].calls: "),
    ({"server": "plane"}, "theme.json: one: there is no server plane"),
    ({"arrivals": [{"$x": 1}]}, "theme.json: vectors[0].arrivals"),
    ({"script": []}, "theme.json: vectors[0].script: "),
    ({"script": [{}]}, "theme.json: vectors[0].script[0]: must have one of response, response_base64, status and"),
    ({"script": [{"status": "NO"}]}, "theme.json: vectors[0].script[0].status: NO is no code of gRPC"),
    ({"script": [{"status": "OK"}], "server": "plain"}, "theme.json: vectors[0]: script and server exclude each other"),
    *(
        ({"calls": [call]}, f"theme.json: {fault}")
        for call, fault in [
            ({}, "vectors[0].calls[0].expect: Field required"),
            ({"expect": {"code": "FINE"}}, "vectors[0].calls[0].expect.code: FINE is no code of gRPC"),
            ({"expect": {"code": "OK", "reason": "WHY"}}, "vectors[0].calls[0].expect.reason: WHY is no ErrorReason"),
            ({"expect": {"code": "OK", "native": {"$x": 1}}}, "vectors[0].calls[0].expect.native: $x is unknown"),
            ({"method": "Call", "expect": {"code": "OK"}}, "vectors[0].calls[0].method: "),
            ({"request": {"nam": "x"}, "expect": {"code": "OK"}}, "vectors[0].calls[0]: request: "),
            ({"request": {"name": "${k}"}, "expect": {"code": "OK"}}, "one: there is no value for ${k}"),
            ({"read_after": 1, "expect": {"code": "OK"}}, "vectors[0].calls[0]: only CallToolStream has progress and"),
            ({"expect": {"code": "OK", "progress": []}}, "vectors[0].calls[0]: only CallToolStream has progress and"),
            ({"timeout": -1, "expect": {"code": "OK"}}, "vectors[0].calls[0].timeout: "),
            ({"during": True, "expect": {"code": "OK"}}, "vectors[0]: calls[0].during: no call runs yet"),
            (
                {"request": {"name": "x"}, "request_base64": "", "expect": {"code": "OK"}},
                "vectors[0].calls[0]: request and request_base64 exclude each other",
            ),
        ]
    ),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_faults_of_a_vector_are_named(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(VectorError) as error:
        load(folder(tmp_path, {**GOOD, **change}))
    assert fault in str(error.value)


def test_faults_of_the_folder_are_named(tmp_path: Path) -> None:
    plain, lonely = {"why": "It is."}, {"why": "It is.", "alone": True}
    second, third = {**GOOD, "server": "lonely"}, {**GOOD, "name": "two", "server": "lonely"}
    with pytest.raises(VectorError) as error:
        load(folder(tmp_path, GOOD, second, third, plain=plain, lonely=lonely, idle=plain))
    assert str(error.value).splitlines() == [
        "theme.json: one: the name is taken",
        "servers.json: lonely: more than one vector is played there",
        "servers.json: idle: no vector is played there",
    ]
