"""The pages for operators: what they name exists, and every response has the id by which they find its line."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import details, reason, refine, request, trailers

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.settings.schema import names, secrets
from agenta_ai_server.telemetry.logs import FIELDS
from agenta_ai_server.telemetry.otel_environment import CHECKS

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

ROOT = Path(__file__).parents[2]
PAGES = ["operations.md", "alerts.md", "errors.md"]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    code = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    named = set(re.findall(r"\bagenta_ai_[a-z_]+", text))
    assert named
    assert all(f'"{name}"' in code for name in named)
    known = {*names(), *(f"{name}_FILE" for name in secrets()), *CHECKS}
    assert set(re.findall(r"\b(?:AGENTA_AI_(?:GRPC|SERVICES)|OTEL)_[A-Z_]+", text)) <= known


def lines(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, Any]]:
    """The lines of calls, by the call's id."""
    fields = [vars(record)[FIELDS] for record in caplog.records if record.message == "call ended"]
    return {each["call"]: each for each in fields}


async def test_the_id_of_each_answer_finds_its_line(
    stub: ToolServiceAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agenta_ai_server")
    failing = stub.CallTool(refine(guidelines="standin: status=500"))
    assert reason(await failing) == "UPSTREAM_FAILED"
    failed = (await failing.trailing_metadata())["x-request-id"]
    working = stub.Status(tool_service_pb2.StatusRequest())
    await working
    worked = (await working.trailing_metadata())["x-request-id"]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.CallTool(request({}, name="tools.no.such.tool"))
    refused = details(error.value)["RequestInfo"]["requestId"]
    assert "x-request-id" not in trailers(error.value)
    found = lines(caplog)
    assert found[str(failed)]["reason"] == "UPSTREAM_FAILED"
    assert found[str(worked)]["method"] == "Status"
    assert found[refused]["reason"] == "TOOL_NOT_FOUND"
