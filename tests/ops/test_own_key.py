"""Our own key in Agenta, which may be replaced while the server runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from calls import reason, refine
from conftest import SOON, connected, settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

OLD, NEW = "old-key.0123456789", "new-key.0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agenta-key"
    path.write_text(OLD + "\n")
    return path


def write(file: Path, content: str | bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


async def until_it_works(stub: ToolServiceAsyncStub) -> None:
    while (await stub.CallTool(refine())).is_error:  # noqa: ASYNC110  # what is waited for is what a caller sees
        await asyncio.sleep(0.02)


async def test_a_new_key_is_used_soon(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with StandIn(api_key=OLD) as standin:
        settings = settings_for(standin, AGENTA_AI_SERVICES_API_KEY="", AGENTA_AI_SERVICES_API_KEY_FILE=str(file))
        async with connected(settings) as stub:
            assert not (await stub.CallTool(refine())).is_error
            standin.api_key = NEW
            assert reason(await stub.CallTool(refine())) == "UPSTREAM_CREDENTIALS_REJECTED"
            write(file, NEW + "\n")
            await asyncio.wait_for(until_it_works(stub), SOON)
    assert OLD not in caplog.text
    assert NEW not in caplog.text


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff\xfe", None], ids=str)
async def test_a_broken_file_keeps_the_old_key(
    content: bytes | None, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with StandIn(api_key=OLD) as standin:
        settings = settings_for(standin, AGENTA_AI_SERVICES_API_KEY="", AGENTA_AI_SERVICES_API_KEY_FILE=str(file))
        async with connected(settings) as stub:
            write(file, content)
            async with asyncio.timeout(SOON):
                while "the last valid version stays in effect" not in caplog.text:
                    assert not (await stub.CallTool(refine())).is_error
                    await asyncio.sleep(0.02)
            assert not (await stub.CallTool(refine())).is_error
    assert "two words" not in caplog.text


async def test_a_key_that_breaks_between_reading_and_starting(file: Path, standin: StandIn) -> None:
    settings = settings_for(standin, AGENTA_AI_SERVICES_API_KEY="", AGENTA_AI_SERVICES_API_KEY_FILE=str(file))
    write(file, "")
    with pytest.raises(SettingsError) as told:
        async with serve.running(settings):
            pass
    assert told.value.faults == [
        f"AGENTA_AI_SERVICES_API_KEY_FILE: {file}: it is empty, and should contain this server's API key in Agenta."
    ]
