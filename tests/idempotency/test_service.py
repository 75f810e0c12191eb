"""The service with a file: what it says at the start, and that it never runs a lost call again."""

from __future__ import annotations

import asyncio
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
import pytest
from calls import details, refine
from conftest import connected, settings_for

from agenta_ai.v1 import error_pb2
from agenta_ai_server.commands import serve
from agenta_ai_server.idempotency import store
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
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


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file of this process grow beyond the largest of the database, as if there were no room on the disk."""
    size = max(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_REPLAY_STORE_UNAVAILABLE"


async def test_on_a_full_disk_calls_are_refused_or_billed_once(
    standin: StandIn, tmp_path: Path, logged: list[str]
) -> None:
    path = tmp_path / "ids.db"
    settings = settings_for(standin, AGENTA_AI_GRPC_IDEMPOTENCY_FILE=str(path))
    before, during, after = refine(), refine(guidelines="standin: delay=1"), refine(guidelines="Be brief.")
    for asked in (before, during, after):
        asked.request_id = str(uuid4())
    async with connected(settings) as stub, connected(settings) as elsewhere:
        await stub.CallTool(before)
        running = asyncio.ensure_future(stub.CallTool(during))
        await standin.when(lambda: standin.in_flight == 1)
        with full_disk(path):
            assert not (await running).is_error
            for _ in range(3):
                await refused(stub.CallTool(after))
                assert (await stub.CallTool(before)).meta.replayed
                assert (await stub.CallTool(during)).meta.replayed
            await refused(elsewhere.CallTool(during))
            assert standin.started == 2
            assert not (await stub.CallTool(refine())).is_error
        assert not (await stub.CallTool(after)).is_error
        assert not (await elsewhere.CallTool(during)).is_error
    async with connected(settings) as again:
        assert all([(await again.CallTool(asked)).meta.replayed for asked in (before, during, after)])
    assert standin.started == 4
    # Once for each of the two processes.
    failing = "the idempotency store is failing: SQLITE_IOERR_WRITE"
    assert [line for line in logged if line.endswith(failing)] == [f"{store.__name__} {failing}"] * 2
