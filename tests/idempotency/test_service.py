"""The service with a file: what it says at the start, and that it never runs a lost call again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import refine
from conftest import connected, settings_for

from agenta_ai.v1 import error_pb2
from agenta_ai_server.commands import serve
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "ids.db"
    path.write_bytes(b"not a database " * 100)
    return path


async def test_a_file_that_cant_be_used_keeps_the_service_from_starting(standin: StandIn, damaged: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        async with serve.running(settings_for(standin, AGENTA_AI_GRPC_IDEMPOTENCY_FILE=str(damaged))):
            pass
    assert raised.value.faults == [
        "AGENTA_AI_GRPC_IDEMPOTENCY_FILE: isn't an SQLite database. Set another path, or move this file away."
    ]


async def test_by_choice_the_service_goes_on_without_its_file(
    standin: StandIn, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(damaged), "AGENTA_AI_GRPC_IDEMPOTENCY_ON_STORE_FAILURE": "local"}
    asked = refine()
    asked.request_id = str(uuid4())
    async with connected(settings_for(standin, **more)) as stub:
        first, second = [await stub.CallTool(asked) for _ in range(2)]
    assert not first.meta.replayed
    assert second.meta.replayed
    assert "AGENTA_AI_GRPC_IDEMPOTENCY_FILE: isn't an SQLite database." in caplog.text


@pytest.mark.parametrize("storage", ["plain", "encrypted", "off"])
async def test_results_outlive_the_service_as_they_are_stored(storage: str, standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    more = {
        "AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db"),
        "AGENTA_AI_GRPC_RESULT_STORAGE": storage,
        "AGENTA_AI_GRPC_RESULT_KEYS_FILE": str(tmp_path / "keys"),
    }
    asked = refine()
    asked.request_id = str(uuid4())
    answers = []
    for _ in range(2):
        async with connected(settings_for(standin, **more)) as stub:
            answers.append(await stub.CallTool(asked))
    assert standin.started == 1
    if storage == "off":
        assert answers[1].error.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
    else:
        assert answers[1].meta.replayed
        assert answers[1].structured_content == answers[0].structured_content
