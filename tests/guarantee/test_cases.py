"""Forty minimal pairs of texts, with what Agenta's own renderers say of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calls import refine

from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "cases.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}-{case['kind']}")
async def test_a_pair(case: dict[str, Any], standin: StandIn, stub: ToolServiceAsyncStub) -> None:
    template = {"messages": [{"role": "user", "content": case["old"]}], "template_format": case["format"]}
    new = case["old"] if case["new"] is None else case["new"]
    answer = {"messages": [{"role": "user", "content": new}], "summary": "Changed."}
    standin.respond = in_turn(Fault(text=json.dumps(answer)))
    if case["new"] is None and case["expect"] == "refuse":
        with pytest.raises(Exception, match="can't be rendered"):
            await stub.CallTool(refine(template))
    else:
        response = await stub.CallTool(refine(template))
        assert response.is_error is (case["expect"] == "refuse"), response.content[0].text
