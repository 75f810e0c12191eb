"""Outputs that are checked as JSON, in processes of their own: what a caller's schema can't do to the service."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import TYPE_CHECKING, Any

import pytest
from cases.prompts import CASES, Model, arguments, outcome_of
from garbage import without_garbage_collection

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.tools.cases.arguments import Expected
from agenta_ai_server.tools.cases.checker import Checker
from agenta_ai_server.tools.cases.expectations import Expectation
from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.workers import pool
from agenta_ai_server.tools.workers.pool import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXCEEDED = "Can't be checked: it takes too much CPU time or memory."
SAME_AGAIN = [{"$ref": "#/$defs/a"}] * 24


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.aclose()


def checker(workers: Workers, **expected: Any) -> Checker:
    return Checker(Expectation(Expected(**expected)), Computing(), workers, "a")


@pytest.mark.parametrize(
    ("expected", "output", "wrong"),
    [
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', []),
        (
            {"json_schema": {"required": ["a"]}, "contains_all": ["b"]},
            "{}",
            ['Must contain "b".', "a: Required, and missing."],
        ),
        ({"json_schema": {"format": "idn-hostname", "pattern": "a"}}, '"a"', []),
        ({"json_equals": None}, "0", ["Must equal null as JSON."]),
        ({"json_contains": ["é\ud800"]}, "[]", ['Must contain ["é\ud800"] as JSON.']),
        ({"json_contains": 1}, "Sure!", ["Must be JSON, and nothing else."]),
        ({"equals": "a"}, "b", ['Must be "a".']),
    ],
)
async def test_outputs_are_checked(expected: dict[str, Any], output: str, wrong: list[str], workers: Workers) -> None:
    check = checker(workers, **expected)
    assert await check.violations() == []
    assert await check.faults(output) == wrong


async def test_what_cannot_be_checked_is_told(workers: Workers) -> None:
    (violation,) = await checker(workers, json_schema={"type": "nothing"}).violations()
    assert violation.field == "json_schema.type"


@pytest.mark.parametrize(
    "expected",
    [
        {"json_schema": {"type": "string"}},
        {"json_equals": "a"},
        {"json_contains": "a"},
        {"json_equals": "a", "contains_all": ["b"]},
    ],
)
async def test_long_json_is_not_read(expected: dict[str, Any], workers: Workers) -> None:
    (fault,) = await checker(workers, **expected).faults(json.dumps("a" * 200_000))
    assert fault == "Must have at most 200,000 characters, because it is checked as JSON."


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(
            {
                "$defs": {"a": {"properties": {f"{n:x}": True for n in range(2000)}}},
                "properties": {f"p{n}": {"allOf": SAME_AGAIN} for n in range(70)},
            },
            {f"p{n}": {} for n in range(70)},
            id="what is referred to is compiled for each reference",
        ),
        pytest.param(
            {
                "$defs": {"a": {"enum": [{"a": f"{n}"} for n in range(499)] + [{"a": "x"}]}},
                "items": {"allOf": SAME_AGAIN},
            },
            [{"a": "x"}] * 4990,
            id="each object is compared with hundreds, for each reference",
        ),
    ],
)
async def test_a_hostile_schema_is_stopped_and_keeps_nobody_waiting(
    schema: dict[str, Any], value: object, workers: Workers
) -> None:
    check, output = checker(workers, json_schema=schema), json.dumps(value)
    assert await check.violations() == []
    # A garbage collection would count with the turn that it falls into.
    with without_garbage_collection():
        worst, cpu = 0.0, time.thread_time()
        checking = asyncio.ensure_future(check.faults(output))
        while not checking.done():
            await asyncio.sleep(0.001)
            worst, cpu = max(worst, time.thread_time() - cpu), time.thread_time()
    faults = checking.result()
    # The oldest version of the library compiles what is referred to only once.
    assert faults == [EXCEEDED] or ("properties" in schema and faults == [])
    assert worst < 0.05
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert await check.faults(output) == faults
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime == cpu, "it isn't tried again"
    assert await checker(workers, json_schema=schema).faults("[]") == [], "others are served"


async def test_a_comparison_of_many_values_keeps_nobody_waiting(workers: Workers) -> None:
    """Of a short output, too: each of its values is compared with each that is expected."""
    output = "[" + "[]," * 131 + "[0]]"
    took = []
    # Now and then, garbage is collected meanwhile.
    for _ in range(5):
        check = checker(workers, json_contains=[[0]] * 499)
        await check.violations()
        cpu = time.process_time()
        assert await check.faults(output) == []
        took.append(time.process_time() - cpu)
    assert min(took) < 0.02


async def test_without_a_process_nothing_is_said_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {**CASES[0], "expected": {"json_equals": 1}}
    model = Model(run_seconds=0, disturb=lambda *_: monkeypatch.setattr(pool, "_SECONDS", 0.0))
    report: Any = (await outcome_of(model, arguments([case, CASES[1]]))).structured
    before = report["cases"][0]["before"]
    assert before["verdict"] == "unknown"
    assert "The output can't be checked" in before["runs"][0]["failure"]


async def test_a_check_that_does_not_end_leaves_time_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have to wait for the checks of others. What was billed is reported all the same."""

    async def never(*_: object) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Checker, "_faults_of_json", never)
    case = {**CASES[0], "expected": {"json_equals": 1}}
    deadline = asyncio.get_running_loop().time() + 1
    report: Any = (await outcome_of(Model(run_seconds=0), arguments([case, CASES[1]]), deadline=deadline)).structured
    assert [case["before"]["verdict"] for case in report["cases"]] == ["unknown", "passed"]


async def test_without_a_process_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SECONDS", 0.0)
    model = Model()
    with pytest.raises(Refused) as refused:
        await outcome_of(model, arguments([{**CASES[0], "expected": {"json_equals": 1}}]))
    assert refused.value.reason is Reason.OVERLOADED
    assert model.answers == 0
