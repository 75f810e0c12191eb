"""Asking once more when an answer would break the prompt."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from calls import TEMPLATE, reason, refine, structured
from conftest import connected, settings_for

from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.tools.workers import pool

if TYPE_CHECKING:
    from agenta_ai_server.standin.answers import CannedResponse
    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.standin.received import Received

ROLES = [message["role"] for message in TEMPLATE["messages"]]  # type: ignore[index]


def written(*contents: str) -> Any:
    messages = [{"role": role, "content": content} for role, content in zip(ROLES, contents, strict=False)]
    return Fault(text=json.dumps({"messages": messages, "summary": "Changed."}))


GOOD = written("Be exact.", "Entities of {{input_text}}")
LOSSY = written("Be exact.", "Entities of the text")
FEWER = written("Be exact.")


def guidelines(standin: StandIn) -> list[str]:
    return [request.inputs["__ag_guidelines"] for request in standin.requests]


async def test_a_second_answer_that_keeps_the_prompt_whole(standin: StandIn) -> None:
    standin.respond = in_turn(LOSSY, GOOD)
    async with connected(settings_for(standin, AGENTA_AI_GRPC_REPAIRS="1")) as stub:
        response = await stub.CallTool(refine(guidelines="Be brief.", context="A test."))
    assert structured(response)["messages"][1]["content"] == "Entities of {{input_text}}"
    assert response.meta.repaired
    traces = [attempt.trace_id for attempt in response.meta.attempts]
    assert len(set(traces)) == 2
    assert response.meta.trace_id == traces[1]
    first, second = guidelines(standin)
    assert first == "Be brief."
    assert second.startswith("Be brief.\n\n")
    assert second.endswith("What was wrong:\n- The refinement lost the variable {{input_text}}.")
    bodies = [request.inputs for request in standin.requests]
    assert bodies[0]["__ag_prompt_template_json"] == bodies[1]["__ag_prompt_template_json"]
    assert bodies[1]["__ag_context"] == "A test."


@pytest.mark.parametrize(
    ("repairs", "replies", "asked", "word"),
    [
        ("0", [LOSSY, GOOD], 1, "lost the variable {{input_text}}"),
        ("1", [LOSSY, FEWER, GOOD], 2, "has 1 message"),
        ("2", [LOSSY, FEWER, LOSSY, GOOD], 3, "lost the variable {{input_text}}"),
        # What came and was paid for is what the caller is told, whatever befalls the second request.
        ("1", [LOSSY, Fault(status=503, retry_after="1"), GOOD], 2, "lost the variable {{input_text}}"),
        ("1", [LOSSY, Fault(answer="null"), GOOD], 2, "lost the variable {{input_text}}"),
        ("1", [LOSSY, Fault(reset="headers"), GOOD], 2, "lost the variable {{input_text}}"),
    ],
)
async def test_no_answer_keeps_the_prompt_whole(
    repairs: str, replies: list[Any], asked: int, word: str, standin: StandIn
) -> None:
    standin.respond = in_turn(*replies)
    async with connected(settings_for(standin, AGENTA_AI_GRPC_REPAIRS=repairs)) as stub:
        response = await stub.CallTool(refine())
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert not response.error.retryable
    assert word in response.content[0].text
    assert len(response.meta.attempts) == asked == standin.started
    assert not response.meta.repaired


@pytest.mark.parametrize("fault", [Fault(stall="headers"), Fault(status=504), Fault(status=500), Fault(status=503)])
async def test_what_brought_no_answer_is_not_repaired(fault: Fault, standin: StandIn) -> None:
    standin.respond = in_turn(fault, GOOD)
    quick = {"AGENTA_AI_GRPC_MAX_CALL_SECONDS": "2", "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS": "0"}
    async with connected(settings_for(standin, AGENTA_AI_GRPC_REPAIRS="3", **quick)) as stub:
        response = await stub.CallTool(refine())
    assert response.is_error
    assert standin.started == 1
    assert len(response.meta.attempts) == 1


async def test_no_repair_if_the_answer_could_not_be_checked(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    good = in_turn(GOOD)

    async def stop(received: Received) -> CannedResponse | Fault | None:
        monkeypatch.setattr(pool, "_SECONDS", 0.0)  # no process responds in time from now on
        return await good(received)

    standin.respond = stop
    async with connected(settings_for(standin, AGENTA_AI_GRPC_REPAIRS="1")) as stub:
        response = await stub.CallTool(refine({**TEMPLATE, "template_format": "jinja2"}))
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert "did not respond in time. It was discarded; the prompt is unchanged." in response.content[0].text
    assert not response.error.field_violations
    assert standin.started == 1


async def test_no_repair_without_the_time_for_it(standin: StandIn) -> None:
    replies = in_turn(LOSSY, GOOD)

    async def slowly(received: Received) -> CannedResponse | Fault | None:
        await asyncio.sleep(1.5)
        return await replies(received)

    standin.respond = slowly
    settings = settings_for(standin, AGENTA_AI_GRPC_REPAIRS="1", AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="10")
    async with connected(settings) as stub:
        # Less than ten seconds are left when the first answer has come.
        response = await stub.CallTool(refine(), timeout=11.4)
    assert reason(response) == "UPSTREAM_OUTPUT_INVALID"
    assert standin.started == 1
