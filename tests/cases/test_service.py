"""The tool as callers meet it: what is refused before anything is paid for, whose money is spent, and what is told."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
import pytest
from calls import WITH_CASES, details, reason, streamed, structured
from cases.prompts import CASES, HOPELESS, ONE_WORD, PROMPT, SENTENCE, asked
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.permissions import Caller
from agenta_ai_server.tools import validation
from agenta_ai_server.tools.cases import copied, expectations, tool
from agenta_ai_server.tools.cases.spending import Spending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.received import Received

PAID = {"AGENTA_AI_GRPC_CASES_MODELS": "gpt-4o-mini"}
BY_AGENTA = {"AGENTA_AI_GRPC_AUTH": "agenta", "AGENTA_AI_GRPC_AGENTA_ALLOW": "*"}


def changed(**llm_config: Any) -> str:
    return json.dumps({**json.loads(PROMPT), "llm_config": llm_config})


def is_run(received: Received) -> bool:
    return isinstance(received.run, dict) and "parameters" in received.run


@pytest.fixture
async def stub(standin: StandIn) -> AsyncIterator[ToolServiceAsyncStub]:
    """A service that pays for the cases of everybody."""
    async with connected(settings_for(standin, **PAID)) as stub:
        yield stub


async def test_a_prompt_gets_better(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    result = structured(response := await stub.CallTool(asked()))
    assert (result["passed_before"], result["passed_after"], result["improved"]) == (3, 5, True)
    assert "name all topics" in json.loads(result["prompt_template_json"])["messages"][0]["content"]
    assert standin.started == result["model_calls"] == len(response.meta.attempts) == 11
    runs = [received for received in standin.requests if is_run(received)]
    assert {received.path for received in runs} == {"/services/completion/v0/invoke"}
    sent = runs[0].run["parameters"]["prompt"]
    assert sent["messages"] == json.loads(PROMPT)["messages"], "Agenta renders the prompt"
    assert sent["llm_config"]["max_tokens"] == 1000


async def test_it_tells_how_many_runs_are_done(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.fault = Fault(delay=0.11)  # progress is sent ten times a second
    progress, _ = await streamed(stub, asked(repeat=2, max_model_calls=60))
    told = [each for each in progress if each.stage == pb.PROGRESS_STAGE_RUNNING_CASES]
    assert {each.total for each in told} == {10}
    first = [each.done for each in told if each.text.startswith("Running")]
    assert first == sorted(first)
    assert any(each.text.startswith("Round 1 of 2: running the test cases: ") for each in told)


async def test_repeats_of_a_request_id_are_paid_once(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    request_id = str(uuid4())
    first, joined = await asyncio.gather(*(stub.CallTool(asked(request_id=request_id)) for _ in range(2)))
    stored = await stub.CallTool(asked(request_id=request_id))
    assert first == joined
    assert stored.meta.replayed
    assert stored.structured_content == first.structured_content
    assert standin.started == 11


@pytest.mark.parametrize(
    ("given", "field", "why"),
    [
        (asked(repeat=5), "arguments.max_model_calls", "up to 77 model calls, and 40 are allowed"),
        (asked([]), "arguments.cases", "at least 1 item"),
        (asked([HOPELESS] * 21), "arguments.cases", "at most 20 items"),
        (asked([{**HOPELESS, "inputs": {}}]), "arguments.cases[0].inputs.message", "the prompt has this variable"),
        (asked([{**HOPELESS, "expected": {}}]), "arguments.cases[0].expected", "Must have at least one property"),
        (
            asked([{**HOPELESS, "expected": {"is": 1}}]),
            "arguments.cases[0].expected.is",
            "Unknown key. Known are: equals,",
        ),
        (asked([HOPELESS, {**HOPELESS, "expected": {"pattern": "("}}]), "arguments.cases[1].expected.pattern", "RE2"),
        (asked(repeat=2, pass_at_least=3), "arguments.pass_at_least", "Must be at most repeat, which is 2."),
        (asked(prompt=changed(model="gpt-4o")), "arguments.prompt_template_json", "the model gpt-4o"),
        (asked(prompt=changed(model="gpt-4o-mini", max_tokens=50_000)), "arguments.cases", "tokens"),
        (asked(prompt="{}"), "arguments.prompt_template_json", "'messages'"),
    ],
)
async def test_what_is_refused_before_anything_is_paid(
    given: pb.CallToolRequest, field: str, why: str, standin: StandIn, stub: ToolServiceAsyncStub
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(given)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation, *_) = details(refused.value)["BadRequest"]["fieldViolations"]
    assert violation["field"] == field
    assert why in violation["description"]
    assert "Value error" not in violation["description"]
    assert standin.started == 0


async def test_what_takes_long_to_check_keeps_nobody_waiting(
    stub: ToolServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty patterns take two seconds to compile, and counting the tokens of a large template a tenth of one."""
    threads = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*args)

        return noted

    monkeypatch.setattr(expectations, "Expectation", noting(expectations.Expectation))
    monkeypatch.setattr(copied, "find_copied", noting(copied.find_copied))
    for name in ("violations", "excess"):
        monkeypatch.setattr(Spending, name, noting(getattr(Spending, name)))
    pattern = {**CASES[0], "expected": {"pattern": "x" * 200}}
    words = {**CASES[0], "expected": {"contains_none": ["xyz"], "contains_any": [f"word {n}" for n in range(20)]}}
    await stub.CallTool(asked([*CASES, pattern, *[words] * 4], max_model_calls=60, guidelines="Be brief. " * 9))
    assert len(threads) == len(CASES) + 5 + 1 + 3
    assert threading.main_thread() not in threads


async def test_large_outputs_are_read_in_turns(
    stub: ToolServiceAsyncStub, paced: list[Hashable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agenta_ai_server.standin.model.answer", lambda *_: "x" * (1 << 16))
    await stub.CallTool(asked([{**HOPELESS, "expected": {"contains_all": ["x"]}}]))
    assert paced == [ANONYMOUS.key]


async def test_no_more_is_wrong_than_is_told(stub: ToolServiceAsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def noted(*args: str) -> Violation:
        made.append(Violation(*args))
        return made[-1]

    monkeypatch.setattr(tool, "Violation", noted)
    keys = [f"{n:x}" for n in range(9000)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(asked([HOPELESS] * 9, prompt=json.dumps({**json.loads(PROMPT), "input_keys": keys})))
    told = details(refused.value)["BadRequest"]["fieldViolations"]
    assert len(made) == len(told) == 10


MANY = {f"{n:x}": 0 for n in range(480)}


@pytest.mark.parametrize("case", [{**HOPELESS, "expected": MANY}, {**HOPELESS, **MANY}])
async def test_no_more_unknown_keys_are_found_than_are_told(
    case: dict[str, Any], stub: ToolServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands take most of a second to find and to describe."""
    made: list[Violation] = []

    def noted(*args: str) -> Violation:
        made.append(Violation(*args))
        return made[-1]

    monkeypatch.setattr(validation, "Violation", noted)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CallTool(asked([case] * 20))
    told = details(refused.value)["BadRequest"]["fieldViolations"]
    assert len(made) == len(told) == 10


async def test_a_refinement_that_breaks_the_prompt_is_rejected(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    result = structured(await stub.CallTool(asked(guidelines="standin: answer=fewer")))
    assert [each["end"] for each in result["rounds"]] == ["rejected", "rejected"]
    assert result["rounds"][0]["why"] == (
        "The refinement has 1 message where there were 2, and was discarded; the prompt is unchanged."
    )
    assert not result["improved"]
    assert standin.started == 5 + 2, "what was rejected isn't run"


async def test_a_regression_is_caught_and_told(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    response = await stub.CallTool(asked([SENTENCE, ONE_WORD]))
    result = structured(response)
    assert (result["improved"], result["passed_before"], result["passed_after"]) == (False, 1, 1)
    assert result["rounds"][0]["end"] == "made_worse"
    contexts = [received.inputs["__ag_context"] for received in standin.requests if not is_run(received)]
    assert ["were rejected" in context for context in contexts] == [False, True]


async def test_agenta_down_in_the_second_round(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    refinements = 0

    async def respond(received: Received) -> Fault | None:
        nonlocal refinements
        refinements += not is_run(received)
        return Fault(status=503) if refinements == 2 else None

    standin.respond = respond
    response = await stub.CallTool(asked([CASES[3], HOPELESS]))
    result = structured(response)
    assert (result["improved"], result["passed_after"], result["stopped"]) == (True, 1, "upstream_failed")
    assert "no topic fits" in result["prompt_template_json"]
    assert "because of a failure" in response.meta.warnings[0]
    assert "Nothing was billed" not in response.meta.warnings[0], "the runs before were"
    assert standin.in_flight == 0


async def test_a_case_that_never_ends(standin: StandIn) -> None:
    """It takes no more than the time of one request, and the others are told."""
    cases = [{**CASES[0], "inputs": {"message": "standin: stall=headers"}}, *CASES[1:]]
    async with connected(settings_for(standin, **PAID, AGENTA_AI_GRPC_CASES_MAX_SECONDS="3")) as stub:
        response = await stub.CallTool(asked(cases))
    result = structured(response)
    verdicts = [case["before"]["verdict"] for case in result["cases"]]
    assert verdicts == ["unknown", "passed", "passed", "failed", "failed"]
    assert "UPSTREAM_TIMEOUT" in result["cases"][0]["before"]["runs"][0]["failure"]
    assert result["stopped"] == "deadline"
    assert standin.in_flight == 0


async def test_where_no_run_gives_an_output_the_tool_fails(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.fault = Fault(status=503, body="traceless")
    response = await stub.CallTool(asked())
    assert reason(response) == "UPSTREAM_UNAVAILABLE"
    assert response.error.retryable
    assert standin.started == 5


async def test_a_caller_who_leaves_leaves_nothing_running(standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.fault = Fault(stall="headers")
    call = stub.CallTool(asked())
    await standin.when(lambda: standin.in_flight == 5)
    call.cancel()
    await standin.when(lambda: standin.in_flight == 0)
    assert standin.started == 5


async def test_it_is_there_only_where_somebody_pays(standin: StandIn) -> None:
    async with connected(settings_for(standin)) as stub:
        listed = await stub.ListTools(pb.ListToolsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(asked())
    assert WITH_CASES not in [tool.name for tool in listed.tools]
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_TOOL_NOT_FOUND"


async def test_callers_of_agenta_run_their_cases_with_their_own_credential() -> None:
    """Their models, their project, their traces, whatever this service would pay for."""
    key, project = "ApiKey their.key", "01b2fd54-f03b-79e2-8a5e-0bf134e8dc02"
    theirs, ours = Caller(project_id=project), Caller()
    callers = {"ApiKey standin-key": ours, key: theirs}
    metadata = (("authorization", key), ("x-agenta-project-id", project))
    async with StandIn(callers=callers) as standin:
        async with connected(settings_for(standin, **BY_AGENTA)) as stub:
            response = await stub.CallTool(asked(prompt=changed(model="anything", n=2)), metadata=metadata)
        assert structured(response)["improved"]
        runs = [received for received in standin.requests if is_run(received)]
        assert {received.path for received in runs} == {f"/services/completion/v0/invoke?project_id={project}"}
        assert runs[0].run["parameters"]["prompt"]["llm_config"] == {"model": "anything", "n": 2}
        case = structured(response)["cases"][0]["before"]["runs"][0]
        path = f"/api/traces/{case['trace_id']}"
        counts = [json.loads(standin.traces.answer(path, caller).body)["count"] for caller in (theirs, ours)]
        assert counts == [1, 0]


@pytest.mark.parametrize("models", ["", "gpt-4o-mini"])
async def test_others_beside_them_have_it_only_if_it_pays(models: str, standin: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, user="u", organization="o", project="p", permissions=["edit_workflows"], expires=None)
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_AUTH="agenta,api_keys",
        AGENTA_AI_GRPC_AGENTA_ALLOW="*",
        AGENTA_AI_GRPC_API_KEYS_FILE=str(file),
        AGENTA_AI_GRPC_CASES_MODELS=models,
    )
    metadata = (("authorization", f"ApiKey {key}"),)
    async with connected(settings) as stub:
        listed = await stub.ListTools(pb.ListToolsRequest(), metadata=metadata)
        assert (WITH_CASES in [tool.name for tool in listed.tools]) == bool(models)
        if models:
            assert structured(await stub.CallTool(asked(), metadata=metadata))["improved"]
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CallTool(asked(), metadata=metadata)
    assert details(refused.value)["ErrorInfo"]["reason"] == "ERROR_REASON_PERMISSION_DENIED"
    assert standin.started == 0


async def test_its_time_is_its_own(standin: StandIn) -> None:
    """A call may take longer than those of the other tools."""
    settings = settings_for(
        standin,
        **PAID,
        AGENTA_AI_GRPC_MAX_CALL_SECONDS="0.4",
        AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0",
        AGENTA_AI_GRPC_CASES_MAX_SECONDS="30",
    )
    standin.fault = Fault(delay=0.2)
    async with connected(settings) as stub:
        response = await stub.CallTool(asked())
    assert structured(response)["improved"]
