"""Every recorded exchange of Agenta, through the real wire, and the exact answer that it must become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from calls import reason, refine, structured
from conftest import connected, settings_for
from google.protobuf import json_format
from upstream.recorded import CAPTURES, EXPECTED, SUCCESSES, UNUSABLE, recorded, trace_id

from agenta_ai_server.standin.app import StandIn, in_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

REFINED = [
    {"role": "system", "content": "You are a precise entity extractor."},
    {"role": "user", "content": "Extract every entity from: {{input_text}}"},
]
SUMMARY = "Clarified role and task."
REFINEMENTS = [case for case in SUCCESSES if SUMMARY in json.dumps(CAPTURES[case]["response"]["body"])]
USELESS = [*UNUSABLE, *(case for case in SUCCESSES if case not in REFINEMENTS)]


@pytest.fixture
async def stub(request: pytest.FixtureRequest, standin: StandIn) -> AsyncIterator[ToolServiceAsyncStub]:
    route = CAPTURES[request.node.callspec.params["case"]]["route"]
    async with connected(settings_for(standin, AGENTA_AI_GRPC_UPSTREAM_ROUTE=route)) as stub:
        yield stub


@pytest.mark.parametrize("case", REFINEMENTS)
async def test_success(case: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.respond = in_turn(recorded(case))
    response = await stub.CallTool(refine())
    result = structured(response)
    assert result["messages"] == REFINED
    assert result["summary"] == "Clarified role and task."
    assert json.loads(result["prompt_template_json"])["messages"] == REFINED
    assert [block.text for block in response.content] == ["Clarified role and task."]
    assert response.meta.trace_id == trace_id(case) != ""
    assert [attempt.trace_id for attempt in response.meta.attempts] == [trace_id(case)]
    assert not response.HasField("error")


@pytest.mark.parametrize("case", USELESS)
async def test_useless(case: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.respond = in_turn(recorded(case))
    response = await stub.CallTool(refine())
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert not response.error.retryable
    assert response.meta.trace_id == trace_id(case)


@pytest.mark.parametrize("case", EXPECTED)
async def test_failure(case: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.respond = in_turn(recorded(case))
    response = await stub.CallTool(refine())
    assert (reason(response), response.error.retryable) == (EXPECTED[case].reason, EXPECTED[case].retryable)
    assert response.error.HasField("retry_delay") == (case == "throttled_429_v0")
    assert response.error.retry_delay.seconds == (2 if case == "throttled_429_v0" else 0)
    assert response.meta.trace_id == trace_id(case)
    assert len(response.meta.attempts) == 1
    assert not response.HasField("structured_content")
    assert len(response.content) == 1
    assert response.content[0].text.endswith(".")
    said = json_format.MessageToJson(response, ensure_ascii=False)
    for text in texts(CAPTURES[case]["response"]["body"]):
        assert text not in said


def texts(body: object) -> Iterator[str]:
    """Every text of a recorded body that is long enough to be recognised, but for its ids."""
    if isinstance(body, dict):
        for key, value in body.items():
            if not key.endswith("_id"):
                yield from texts(value)
    elif isinstance(body, list):
        for value in body:
            yield from texts(value)
    elif isinstance(body, str) and len(body) >= 4:
        yield from (body, *(word for word in body.split() if len(word) > 16))
