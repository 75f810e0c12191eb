"""docs/operations.md: every reason has its row, and what it names exists. And every answer has the id it tells of."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import details, reason, refine, request, trailers

from agenta_ai.v1 import error_pb2, tool_service_pb2
from agenta_ai_server.settings.schema import names, secrets
from agenta_ai_server.telemetry.logs import FIELDS
from agenta_ai_server.telemetry.otel_environment import CHECKS

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operations.md").read_text()
ROWS = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    "name",
    [
        value.name
        for value in error_pb2.ErrorReason.DESCRIPTOR.values
        if value.number and not value.GetOptions().deprecated
    ],
)
def test_every_reason_has_a_meaning_and_an_action(name: str) -> None:
    symptom = f"| `{name.removeprefix('ERROR_REASON_')}`"
    (row,) = [row for row in ROWS if row[0] == symptom]
    assert len(row) == 3
    assert all(len(cell) > 5 for cell in row)


def test_what_it_names_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    named = set(re.findall(r"\bagenta_ai_[a-z_]+", TEXT))
    assert named
    assert all(f'"{name}"' in code for name in named)
    known = {*names(), *(f"{name}_FILE" for name in secrets()), *CHECKS}
    assert set(re.findall(r"\b(?:AGENTA_AI_(?:GRPC|SERVICES)|OTEL)_[A-Z_]+", TEXT)) <= known


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
