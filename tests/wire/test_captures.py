"""Every recorded answer of Agenta, through the real wire, and the exact answer that it must become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calls import reason, refine, structured
from google.protobuf import json_format

from agenta_ai_server.standin.answers import Answer
from agenta_ai_server.standin.app import StandIn, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

CAPTURES: dict[str, dict[str, Any]] = {
    capture["case"]: capture
    for capture in json.loads((Path(__file__).parent.parent / "data/completion_captures.json").read_text())
}
REFINED = [
    {"role": "system", "content": "You are a precise entity extractor."},
    {"role": "user", "content": "Extract every entity from: {{input_text}}"},
]

SUCCESSES = [
    "success",
    "success_traceparent",
    "success_2",
    "env_dict",
    "env_slug_app_slug",
    "generate_deployed",
    "accept_sse",
    "bare_key_no_scheme",
    "app_only_no_env",
    "extra_input",
    "fstring_refiner",
    "jinja2_refiner",
    "mustache_refiner",
    "llm_slow_20s",
    "app_no_env",
]
# Reason of the failure, then the recorded answers that it is the answer to. Those of other routes are a 200 of a
# foreign shape, or what an operator gets who mistypes the address.
FAILURES = {
    "UPSTREAM_OUTPUT_INVALID": [
        "v0_invoke",
        "dispatch_invoke",
        "mock_hello",
        "mock_hello_v0",
        "inline_ag_config",
        "health",
        "nonjson",
        "llm_nonjson",
        "llm_fenced",
        "llm_refusal",
        "llm_empty",
        "llm_toolcalls",
        "llm_truncated",
    ],
    "UPSTREAM_CREDENTIALS_REJECTED": ["bad_api_key", "bad_key", "no_auth", "bearer_garbage", "forbidden", "v0_health"],
    "UPSTREAM_RATE_LIMITED": ["throttled_429", "throttled_429_v0"],
    "UPSTREAM_REJECTED": [
        "project_id_query",
        "unknown_app_only",
        "unknown_app_no_env",
        "no_refs",
        "missing_input",
        "null_input",
        "body_not_json",
        "body_list",
        "get",
        "v0_invalid_body_422",
        "llm_400",
        "no_provider_secret",
        "unknown_path",
    ],
    "UPSTREAM_PROVIDER_FAILED": ["llm_401", "llm_429", "llm429"],
    "UPSTREAM_FAILED": [
        "unknown_app",
        "unknown_app_2",
        "unknown_env",
        "unknown_env_2",
        "env_only",
        "env_not_deployed",
        "inputs_list",
        "inputs_str",
        "llm_500",
        "llm500",
        "llm_down",
        "design_doc_config",
        "designdoc",
        "stream_true_config",
        "api_backend_down_cached_auth",
    ],
    "UPSTREAM_UNAVAILABLE": ["api_backend_down"],
}
RETRYABLE = {"UPSTREAM_RATE_LIMITED", "UPSTREAM_PROVIDER_FAILED", "UPSTREAM_UNAVAILABLE"}
EXPECTED = {case: why for why, cases in FAILURES.items() for case in cases}


def test_every_recorded_answer_is_expected_to_become_something() -> None:
    assert sorted([*SUCCESSES, *EXPECTED]) == sorted(CAPTURES)


def recorded(case: str) -> Answer:
    response = CAPTURES[case]["response"]
    body = response["body"]
    return Answer(
        response["status"], response["headers"], body.encode() if isinstance(body, str) else json.dumps(body).encode()
    )


def trace_id(case: str) -> str:
    body = CAPTURES[case]["response"]["body"]
    return str(body.get("trace_id", "")) if isinstance(body, dict) else ""


@pytest.mark.parametrize("case", SUCCESSES)
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


@pytest.mark.parametrize(("case", "why"), EXPECTED.items())
async def test_failure(case: str, why: str, standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    standin.respond = in_turn(recorded(case))
    response = await stub.CallTool(refine())
    assert reason(response) == why
    assert response.error.retryable == (why in RETRYABLE)
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
