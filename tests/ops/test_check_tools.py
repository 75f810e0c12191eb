"""What ``check`` says of the prompts behind the tools of the tools file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import settings_for
from drift.recorded import RECORDED, deploy, project

from agenta_ai_server.checks import tools_file
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agenta_ai_server.checks.shared import Found

TOOL = """\
[tools."tools.acme.geo.{name}"]
application = "{application}"
description = "Finds a capital."
[tools."tools.acme.geo.{name}".arguments]
type = "object"
properties = {{ domain = {{ type = "string" }}, country = {{ type = "string" }} }}
"""


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        for slug in ("capital", "capital-nokeys", "hook-app"):
            deploy(standin, slug)
        yield standin


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.toml"
    pairs = {"first": "capital", "second": "capital-nokeys"}
    path.write_text("\n".join(TOOL.format(name=name, application=slug) for name, slug in pairs.items()))
    return path


async def found(standin: StandIn, file: Path | str, **more: str) -> list[Found]:
    settings = settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(file), **more)
    return [each async for each in tools_file.deployments(settings)]


async def test_all_is_fine(standin: StandIn, file: Path) -> None:
    assert await found(standin, file) == [("ok", "What is deployed fits the tools file: 2 compared.", "")]


async def test_without_a_file_nothing_is_said(standin: StandIn) -> None:
    assert await found(standin, "") == []
    assert [each.path for each in standin.requests] == []


async def test_drift_is_a_warning_and_what_fails_every_call_is_a_failure(standin: StandIn, file: Path) -> None:
    prompt = {**RECORDED["capital"]["data"]["parameters"]["prompt"], "input_keys": ["domain", "country", "tone"]}
    deploy(standin, "capital", {"uri": RECORDED["capital"]["data"]["uri"], "parameters": {"prompt": prompt}})
    deploy(standin, "capital-nokeys", RECORDED["hook-app"]["data"])
    assert [(each.state, each.said) for each in await found(standin, file)] == [
        ("warning", "tools.acme.geo.first: The input tone is new, and the tool has no argument for it."),
        (
            "failed",
            "tools.acme.geo.second: The application holds no prompt: it has the type agenta:custom:hook:v0.",
        ),
    ]
    project(standin).environments["production"].commit({}, "ada")
    assert [each.state for each in await found(standin, file)] == ["failed", "failed"]


async def test_what_other_parts_say_is_not_said_twice(standin: StandIn, file: Path) -> None:
    standin.permissions.callers = {}
    assert await found(standin, file, AGENTA_AI_SERVICES_API_KEY="another-key") == []
    assert await found(standin, file, AGENTA_AI_SERVICES_API_URL="http://127.0.0.1:9") == []


async def test_a_key_that_may_not_read(standin: StandIn, file: Path) -> None:
    standin.permissions.callers = {"ApiKey standin-key": Caller(actions=frozenset({"run_service"}))}
    (only,) = await found(standin, file)
    assert only.state == "failed"
    assert "the role in the project is too low" in only.said


async def test_an_older_release(standin: StandIn, file: Path) -> None:
    standin.lacks = frozenset({"/api/simple/applications/query"})
    assert await found(standin, file) == [
        ("ok", "What is deployed can't be read from Agenta before v0.96.6.", ""),
    ]
